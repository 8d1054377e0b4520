"""Vectors on disk by key, in files that are written once. Knows no picture and no model.

A file, called a segment, holds up to `ROWS` keys and vectors and is named by a digest of both and of the encoder. So a
run that is cut short loses only what it had not written yet, two runs may share a folder, and a damaged file is
noticed when it is first used, and removed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from retrieval_prompts.errors import UserError, first_line
from retrieval_prompts.files import sweep, write_bytes

ROWS = 1024
KEY = 33  # bytes: a SHA-256, and one for the view


class Segments:
    """The vectors of one encoder. They stay on disk, memory-mapped; in memory is where each key's vector is.

    Args:
        folder: made when the first segment is written.
        encoder: names all that the vectors depend on except the key.
        dimension: of a vector.
    """

    def __init__(self, folder: Path, encoder: str, dimension: int) -> None:
        self.folder, self.encoder, self.dimension = folder, encoder, dimension
        self._names: list[str] = []
        self._vectors: list[Tensor | None] = []  # (rows, dimension) in half precision; None: damaged, or not opened yet
        self._unopened: set[int] = set()
        self._where: dict[bytes, int] = {}  # key -> location: segment << 32 | row
        sweep(folder)
        self.scan()

    def scan(self) -> None:
        """Learn the keys of segments that have come into the folder since the last time."""
        try:
            names = {name for name in os.listdir(self.folder) if name.endswith(".safetensors") and name[0] != "."}
        except FileNotFoundError:
            return
        except OSError as error:
            raise UserError(f"{self.folder} cannot be read ({error.strerror}); expected a folder of vectors") from None
        for name in sorted(names.difference(self._names)):
            try:
                with safe_open(self.folder / name, "pt") as file:
                    ours = (file.metadata() or {}).get("encoder") == self.encoder
                    table = file.get_tensor("keys") if ours else torch.empty(0)
            except (OSError, SafetensorError):
                table = torch.empty(0)
            keys = table.numpy().tobytes() if table.dtype == torch.uint8 else b""
            self._learn(name, [keys[start : start + KEY] for start in range(0, len(keys), KEY)])

    def find(self, key: bytes) -> int | None:
        """The location of the key's vector, for `rows`; None if there is none, or its segment is damaged."""
        location = self._where.get(key)
        if location is None:
            return None
        number = location >> 32
        if number in self._unopened:
            self._vectors[number] = self._open(self.folder / self._names[number])
            if self._vectors[number] is None:  # or its keys would be looked for there again
                with contextlib.suppress(OSError):
                    (self.folder / self._names[number]).unlink()
            self._unopened.discard(number)
        return location if self._vectors[number] is not None else None

    def rows(self, locations: NDArray[np.int64]) -> Tensor:
        """Locations (b,) that `find` gave -> vectors (b, dimension) in half precision."""
        result = torch.empty(len(locations), self.dimension, dtype=torch.float16)
        numbers = locations >> 32
        for number in np.unique(numbers):
            chosen = np.flatnonzero(numbers == number)
            vectors = self._vectors[number]
            assert vectors is not None
            result[torch.from_numpy(chosen)] = vectors[torch.from_numpy(locations[chosen] & 0xFFFFFFFF)]
        return result

    def add(self, keys: Sequence[bytes], vectors: Tensor) -> None:
        """Write one segment: keys of KEY bytes, and their vectors (n, dimension).

        Raises:
            UserError: if it cannot.
        """
        tensors = {
            "keys": torch.frombuffer(bytearray(b"".join(keys)), dtype=torch.uint8).view(len(keys), KEY),
            "vectors": vectors.half().contiguous(),
        }
        name = self._name(tensors)
        try:
            write_bytes(self.folder / name, safetensors.torch.save(tensors, {"encoder": self.encoder}))
        except OSError as error:
            raise UserError(
                f"{self.folder} cannot be written ({error.strerror or error}); make room there, or choose another"
                " folder with the variable RETRIEVAL_PROMPTS_CACHE"
            ) from None
        self._learn(name, keys)

    def _learn(self, name: str, keys: Sequence[bytes]) -> None:
        number = len(self._names)
        self._names.append(name)
        self._vectors.append(None)
        self._unopened.add(number)
        self._where.update((key, number << 32 | row) for row, key in enumerate(keys))

    def _open(self, path: Path) -> Tensor | None:
        try:
            with safe_open(path, "pt") as file:
                tensors = {name: file.get_tensor(name) for name in ("keys", "vectors")}
        except (OSError, SafetensorError):
            return None
        right = tensors["vectors"].dtype == torch.float16 and tensors["vectors"].shape[1:] == (self.dimension,)
        return tensors["vectors"] if right and self._name(tensors) == path.name else None

    def _name(self, tensors: dict[str, Tensor]) -> str:
        return _name(self.encoder, tensors)


def check(path: Path) -> bool:
    """True.

    Raises:
        UserError: for a segment that is not the one which was written under its name.
    """
    try:
        with safe_open(path, "pt") as file:
            encoder = (file.metadata() or {}).get("encoder", "")
            tensors = {name: file.get_tensor(name) for name in ("keys", "vectors")}
            sound = _name(encoder, tensors) == path.name
    except (OSError, SafetensorError, RuntimeError) as error:
        raise UserError(f"{path} cannot be read as safetensors ({first_line(error)}); remove it") from None
    if not sound:
        raise UserError(f"{path} was changed after it was written; remove it, and its pictures are encoded again")
    return True


def _name(encoder: str, tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(encoder.encode())
    for part in ("keys", "vectors"):
        digest.update(f"{tuple(tensors[part].shape)}".encode())
        digest.update(tensors[part].view(torch.uint8).numpy().data)
    return f"{digest.hexdigest()[:32]}.safetensors"

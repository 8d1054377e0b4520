"""FAISS index files that are written vector by vector: flat ones and scalar codes, whose file is a head and then codes.

How FAISS writes such a file is not described anywhere, so it is not taken for granted: the head is FAISS's own, and an
index of three vectors must come out byte by byte as FAISS writes it. Where it does not, the index is built in memory.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

FEW = 3  # vectors of the index that is compared
COUNT = slice(8, 16)  # bytes of the head: behind four letters and the dimension


class Streamed:
    """The layout of an index file; made by `of`."""

    def __init__(self, index: Any, head: bytes, unit: int) -> None:
        self._index, self._head, self._unit = index, head, unit

    @classmethod
    def of(cls, index: Any) -> Streamed | None:
        """That of an empty, trained faiss.Index; None for a type that cannot be written so."""
        faiss: Any = importlib.import_module("faiss")
        if not isinstance(faiss.downcast_index(index), faiss.IndexFlat | faiss.IndexScalarQuantizer):
            return None
        some = np.linspace(-1, 1, FEW * index.d, dtype=np.float32).reshape(FEW, index.d)
        head = faiss.serialize_index(index).tobytes()
        filled = faiss.clone_index(index)
        filled.add(some)
        expected = faiss.serialize_index(filled).tobytes()
        found = cls(index, head, int.from_bytes(expected[len(head) - 8 : len(head)], "little") // FEW)
        return found if found._headed(FEW) + found._codes(some) == expected else None

    def write(self, path: Path, blocks: Iterable[np.ndarray]) -> int:
        """Write a file of these vectors, blocks (any, dimension) of float32; returns how many they are."""
        count = 0
        with path.open("wb") as file:
            file.write(self._head)
            for block in blocks:
                file.write(self._codes(block))
                count += len(block)
            file.seek(0)
            file.write(self._headed(count))
        return count

    def _headed(self, count: int) -> bytes:
        size = (count * self._unit).to_bytes(8, "little")
        return self._head[: COUNT.start] + count.to_bytes(8, "little") + self._head[COUNT.stop : -8] + size

    def _codes(self, vectors: np.ndarray) -> bytes:
        codes: np.ndarray = self._index.sa_encode(vectors)
        return codes.tobytes()

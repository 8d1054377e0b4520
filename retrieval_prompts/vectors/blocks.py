"""A corpus's vectors in blocks on disk that no run computes twice, and none uses when a byte of them is wrong.

A block is a file in numpy's format with the sha256 of its name and content behind it; the name is a digest of encoder
and texts. One that is damaged, cut, empty or exchanged for another, or has no digest, is encoded again.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from retrieval_prompts.data.plain_texts import as_texts
from retrieval_prompts.errors import DataWarning, UserError, first_line
from retrieval_prompts.files import sweep, write_bytes
from retrieval_prompts.towers.text import Floats, TextTower
from retrieval_prompts.vectors.encode import BLOCK, encode_texts

DIGEST = 32  # bytes at the end of a block's file
OPEN = 256  # files that stay mapped; others are mapped whenever they are read


@runtime_checkable
class Unread(Protocol):
    """A block of vectors that is read when it is asked for."""

    def __len__(self) -> int: ...

    def read(self) -> Floats: ...


@dataclass(frozen=True)
class Kept:
    """A block in a file, which is mapped when it is read: a process may have only so many files open."""

    path: Path
    shape: tuple[int, int]

    def __len__(self) -> int:
        return self.shape[0]

    def read(self) -> Floats:
        """Raises UserError where it has gone since it was found."""
        try:
            found: Floats = np.load(self.path, mmap_mode="r", allow_pickle=False)
        except (FileNotFoundError, ValueError, EOFError) as error:
            raise UserError(f"{self.path} changed while it was used ({first_line(error)}); run it again") from None
        if found.shape != self.shape or found.dtype != np.float32:
            raise UserError(f"{self.path} changed while it was used; run it again")
        return found


@dataclass(frozen=True)
class Made:
    """A block that is computed whenever it is read."""

    count: int
    make: Callable[[], Floats]

    def __len__(self) -> int:
        return self.count

    def read(self) -> Floats:
        return self.make()


class VectorBlocks:
    """Vectors of a corpus in blocks, in the corpus's order; on disk they are memory-mapped.

    Iterating gives blocks (n, dimension) in float32; `array()` puts them into one array.

    Args:
        encoded: how many texts were encoded now, not found in the cache.
        transform: applied to vectors whenever they are read.
    """

    def __init__(
        self,
        blocks: Sequence[Floats | Unread],
        dimension: int,
        encoded: int,
        transform: Callable[[Floats], Floats] | None = None,
    ) -> None:
        self.blocks = list(blocks)
        self.dimension = dimension
        self.encoded = encoded
        self.transform: Callable[[Floats], Floats] = transform or (lambda vectors: vectors)
        self.starts = np.cumsum([0, *(len(block) for block in self.blocks)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __iter__(self) -> Iterator[Floats]:
        return map(self.block, range(len(self.blocks)))

    def block(self, number: int, *, as_kept: bool = False) -> Floats:
        """The vectors of a block (n, dimension); `as_kept`: before they are transformed."""
        found = self.blocks[number]
        vectors = found.read() if isinstance(found, Unread) else found
        return vectors if as_kept else self.transform(vectors)

    @property
    def nbytes(self) -> int:
        return len(self) * self.dimension * 4

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Floats:
        """For `np.asarray`: see `array`."""
        if copy is False:
            raise ValueError("the vectors lie in blocks; an array of them is a copy")
        return self.array() if dtype is None else self.array().astype(dtype)

    def array(self) -> Floats:
        """All vectors (corpus, dimension) in memory."""
        result = np.empty((len(self), self.dimension), dtype=np.float32)
        for start, block in zip(self.starts, self, strict=False):
            result[start : start + len(block)] = block
        return result

    def rows(self, positions: NDArray[np.int64]) -> Floats:
        """The vectors at these positions (n, dimension), read from their blocks alone."""
        result = np.empty((len(positions), self.dimension), dtype=np.float32)
        owners = np.searchsorted(self.starts, positions, side="right") - 1
        order = np.argsort(owners, kind="stable")
        ends = np.flatnonzero(np.diff(owners[order], append=-1)) + 1
        for chosen in np.split(order, ends[:-1]) if len(order) else []:
            owner = int(owners[chosen[0]])
            result[chosen] = self.transform(self.block(owner, as_kept=True)[positions[chosen] - self.starts[owner]])
        return result


def combined(one: VectorBlocks, other: VectorBlocks, combine: Callable[[Floats, Floats], Floats]) -> VectorBlocks:
    """Of two vectors of each text one; computed whenever a block is read, from both as they are kept."""

    def made(number: int) -> Floats:
        return combine(one.block(number, as_kept=True), other.block(number, as_kept=True))

    blocks = [Made(len(block), partial(made, number)) for number, block in enumerate(other.blocks)]
    return VectorBlocks(blocks, other.dimension, other.encoded)


@runtime_checkable
class Contents(Protocol):
    """Texts that are read a stretch at a time, as `Corpus` has them."""

    def __len__(self) -> int: ...

    def contents(self, start: int, stop: int) -> list[str]: ...


def encode_blocks(
    tower: TextTower,
    documents: Contents,
    kind: str = "input",
    vectors: Tensor | None = None,
    *,
    encoder: str,
    cache: Path | None,
    transform: Callable[[Floats], Floats] | None = None,
    precision: str = "float32",
) -> VectorBlocks:
    """Encode documents in blocks, taking from `cache` what is there and keeping there what was not.

    Args:
        documents: only one block of their texts is held at a time.
        encoder: names the encoder: its fingerprint, side and prompt. Part of each block's file name.
        cache: a folder, or None to keep all blocks in memory.
        transform: see `VectorBlocks`; the cache holds vectors as the model gives them.
        precision: see `encode_texts`. The cache keeps vectors of different precisions apart.
    """
    if precision != "float32":
        encoder = hashlib.sha256(f"{encoder}|{precision}".encode()).hexdigest()
    if cache is not None:
        sweep(cache / encoder[:16])
    blocks: list[Floats | Unread] = []
    encoded, count, cut = 0, len(documents), Counter[str]()
    bar: tqdm[None] | None = None
    for start in range(0, count, BLOCK):
        texts = documents.contents(start, min(start + BLOCK, count))
        path = cache / encoder[:16] / f"{_digest(encoder, texts)}.npy" if cache is not None else None
        shape = len(texts), tower.dimension
        found = _load(path, shape) if path is not None else None
        if found is None:
            if bar is None:
                bar = tqdm(total=count, initial=start, desc="encode documents", unit="text", delay=1, mininterval=0.5)
            texts = as_texts(texts, first=start)
            found = encode_texts(
                tower, texts, "document", kind, vectors, precision=precision, progress=bar.update, cut=cut
            )
            encoded += len(texts)
            if path is not None:
                found = _keep(path, found)
        elif bar is not None:
            bar.update(len(texts))
        blocks.append(found if path is None or len(blocks) < OPEN else Kept(path, shape))
    if bar is not None:
        bar.close()
    if cut["texts"]:
        room = tower.total_length("document", 0)
        warnings.warn(
            f"{cut['texts']:,} of {encoded:,} documents that were encoded are cut at the {room} tokens that model "
            f"{tower.name} reads; chunks are read whole: retrieval-prompts corpus DATA --chunk {room} --out CHUNKS",
            DataWarning,
            stacklevel=3,
        )
    return VectorBlocks(blocks, tower.dimension, encoded, transform)


def sound(path: Path) -> bool:
    """Whether a block is the one that was written under its name: all of it is read. Raises FileNotFoundError."""
    content = path.read_bytes()
    return content[-DIGEST:] == _seal(path, content[:-DIGEST])


def _seal(path: Path, content: bytes) -> bytes:
    return hashlib.sha256(path.stem.encode() + content).digest()


def _keep(path: Path, block: Floats) -> Floats:
    """Write a block; returns it memory-mapped."""
    buffer = io.BytesIO()
    np.save(buffer, block, allow_pickle=False)
    write_bytes(path, buffer.getvalue() + _seal(path, buffer.getvalue()))
    mapped: Floats = np.load(path, mmap_mode="r", allow_pickle=False)
    return mapped


def _load(path: Path, shape: tuple[int, ...]) -> Floats | None:
    try:
        if not sound(path):
            return None
        block: Floats = np.load(path, mmap_mode="r", allow_pickle=False)
    except (FileNotFoundError, ValueError, EOFError):
        return None
    return block if block.shape == shape and block.dtype == np.float32 else None


def _digest(encoder: str, texts: list[str]) -> str:
    digest = hashlib.sha256(encoder.encode())
    for text in texts:
        content = text.encode("utf-8", "surrogatepass")
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)
    return digest.hexdigest()

"""Texts -> vectors: length buckets, token budgets, and blocks on disk that no run computes twice.

A block file is named by everything that its vectors depend on (the encoder and the texts), so a changed corpus or
prompt never finds a stale one, an interrupted run goes on where it stopped, and two runs may share a folder.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.utils.checkpoint
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from retrieval_prompts.attach import embed, prompt_room
from retrieval_prompts.errors import UserError
from retrieval_prompts.files import write_bytes
from retrieval_prompts.tower import Floats, TextTower

BLOCK = 2048  # texts


PRECISIONS = ("float32", "bfloat16")


def token_budget(device: torch.device, precision: str = "float32") -> int:
    """Padded tokens a forward pass: small enough for a CPU's caches, large enough to fill a GPU."""
    if device.type != "cpu":
        return 65536
    return 1024 if precision == "float32" else 4096


def embed_texts(
    tower: TextTower, ids: Sequence[list[int]], side: str, kind: str, vectors: Tensor | None, *, saving: bool = False
) -> Tensor:
    """Token ids of any number of texts -> vectors (texts, dimension), in order, in passes of equal-length texts.

    With `saving`, activations are recomputed in the backward pass, so that memory does not grow with the number of
    texts (torch.utils.checkpoint).
    """
    room = prompt_room(kind, vectors)
    lengths = [len(row) + room for row in ids]
    order = sorted(range(len(ids)), key=lengths.__getitem__)
    parts: list[Tensor] = []
    for batch in _batches(order, lengths, token_budget(tower.device)):
        rows = [ids[index] for index in batch]
        if saving and vectors is not None:
            run = partial(embed, tower, rows, side, kind)
            part = torch.utils.checkpoint.checkpoint(run, vectors, use_reentrant=False)
        else:
            part = embed(tower, rows, side, kind, vectors)
        parts.append(part)
    if not parts:
        return torch.zeros(0, tower.dimension, device=tower.device)
    back = torch.empty(len(order), dtype=torch.long)
    back[torch.tensor(order)] = torch.arange(len(order))
    return torch.cat(parts)[back.to(tower.device)]


@torch.no_grad()
def encode_texts(
    tower: TextTower,
    texts: Sequence[str],
    side: str,
    kind: str = "input",
    vectors: Tensor | None = None,
    *,
    precision: str = "float32",
    progress: Callable[[int], object] | None = None,
) -> Floats:
    """Texts -> vectors (texts, dimension) in float32, as the model's own `encode` gives them.

    Args:
        precision: of the matrix products: "float32" or "bfloat16" (torch.autocast; weights stay as they are). With the
            latter a vector's cosine to its exact one is 0.9999 for MiniLM, and batch mates may move it as little.
        progress: called with the number of texts done since the last call.

    Raises UserError for another precision.
    """
    if precision not in PRECISIONS:
        raise UserError(f"--precision must be {' or '.join(PRECISIONS)}, got {precision!r}")
    room = prompt_room(kind, vectors)
    result = np.empty((len(texts), tower.dimension), dtype=np.float32)
    # Long texts first, so that a memory shortage shows at once; windows bound the memory of token ids
    for start in range(0, len(texts), BLOCK):
        window = list(texts[start : start + BLOCK])
        ids = tower.tokenize(window, side, prompt=room)
        lengths = [len(row) + room for row in ids]
        order = sorted(range(len(ids)), key=lengths.__getitem__, reverse=True)
        for batch in _batches(order, lengths, token_budget(tower.device, precision)):
            with torch.autocast(tower.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
                part = embed(tower, [ids[index] for index in batch], side, kind, vectors)
            result[[start + index for index in batch]] = part.float().cpu().numpy()
            if progress is not None:
                progress(len(batch))
    return result


class VectorBlocks:
    """Vectors of a corpus in blocks, in the corpus's order; on disk they are memory-mapped.

    Iterating gives blocks (n, dimension) in float32; `array()` puts them into one array.

    Args:
        encoded: how many texts were encoded now, not found in the cache.
        transform: applied to vectors whenever they are read.
    """

    def __init__(
        self,
        blocks: Sequence[Floats],
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
        return (self.transform(block) for block in self.blocks)

    @property
    def nbytes(self) -> int:
        return len(self) * self.dimension * 4

    def array(self) -> Floats:
        """All vectors (corpus, dimension) in memory."""
        if not self.blocks:
            return np.empty((0, self.dimension), dtype=np.float32)
        return np.concatenate(list(self))

    def rows(self, positions: NDArray[np.int64]) -> Floats:
        """The vectors at these positions (n, dimension), read from their blocks alone."""
        result = np.empty((len(positions), self.dimension), dtype=np.float32)
        owners = np.searchsorted(self.starts, positions, side="right") - 1
        for owner in np.unique(owners):
            chosen = owners == owner
            result[chosen] = self.transform(self.blocks[owner][positions[chosen] - self.starts[owner]])
        return result


def encode_blocks(
    tower: TextTower,
    count: int,
    read: Callable[[int, int], list[str]],
    side: str,
    kind: str = "input",
    vectors: Tensor | None = None,
    *,
    encoder: str,
    cache: Path | None,
    transform: Callable[[Floats], Floats] | None = None,
    precision: str = "float32",
) -> VectorBlocks:
    """Encode `count` texts in blocks, taking from `cache` what is there and keeping there what was not.

    Args:
        read: (start, stop) -> texts; only one block of them is held at a time.
        encoder: names the encoder: its fingerprint, side and prompt. Part of each block's file name.
        cache: a folder, or None to keep all blocks in memory.
        transform: see `VectorBlocks`; the cache holds vectors as the model gives them.
        precision: see `encode_texts`. The cache keeps vectors of different precisions apart.
    """
    if precision != "float32":
        encoder = hashlib.sha256(f"{encoder}|{precision}".encode()).hexdigest()
    blocks: list[Floats] = []
    encoded = 0
    bar: tqdm[None] | None = None
    for start in range(0, count, BLOCK):
        texts = read(start, min(start + BLOCK, count))
        path = cache / encoder[:16] / f"{_digest(encoder, texts)}.npy" if cache is not None else None
        found = _load(path, (len(texts), tower.dimension)) if path is not None else None
        if found is None:
            if bar is None:
                bar = tqdm(total=count, initial=start, desc=f"encode {side}s", unit="text", delay=1, mininterval=0.5)
            found = encode_texts(tower, texts, side, kind, vectors, precision=precision, progress=bar.update)
            encoded += len(texts)
            if path is not None:
                buffer = io.BytesIO()
                np.save(buffer, found, allow_pickle=False)
                write_bytes(path, buffer.getvalue())
                found = _load(path, found.shape)
                assert found is not None
        elif bar is not None:
            bar.update(len(texts))
        blocks.append(found)
    if bar is not None:
        bar.close()
    return VectorBlocks(blocks, tower.dimension, encoded, transform)


def default_cache() -> Path:
    """$RETRIEVAL_PROMPTS_CACHE, else retrieval-prompts in the user's cache folder."""
    if named := os.environ.get("RETRIEVAL_PROMPTS_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "retrieval-prompts"


def _load(path: Path, shape: tuple[int, ...]) -> Floats | None:
    try:
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


def _batches(order: list[int], lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Cut an order sorted by length into runs whose padded size stays within the budget, one text at least."""
    batch: list[int] = []
    longest = 0
    for index in order:
        longest_now = max(longest, lengths[index])
        if batch and longest_now * (len(batch) + 1) > budget:
            yield batch
            batch, longest_now = [], lengths[index]
        batch.append(index)
        longest = longest_now
    if batch:
        yield batch

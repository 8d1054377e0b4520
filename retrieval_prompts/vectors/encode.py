"""Texts -> vectors: length buckets, token budgets, and blocks on disk that no run computes twice.

A block file is named by everything that its vectors depend on (the encoder and the texts), so a changed corpus or
prompt never finds a stale one, an interrupted run goes on where it stopped, and two runs may share a folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
import torch.utils.checkpoint
from torch import Tensor

from retrieval_prompts.data.plain_texts import as_texts
from retrieval_prompts.errors import UserError
from retrieval_prompts.towers.injection import embed, prompt_room
from retrieval_prompts.towers.text import Floats, TextTower

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
        own = vectors[batch] if vectors is not None and vectors.dim() == 4 else vectors
        if saving and own is not None:
            run = partial(embed, tower, rows, side, kind)
            part = torch.utils.checkpoint.checkpoint(run, own, use_reentrant=False)
        else:
            part = embed(tower, rows, side, kind, own)
        parts.append(part)
    if not parts:
        return torch.zeros(0, tower.dimension, device=tower.device)
    back = torch.empty(len(order), dtype=torch.long)
    back[torch.tensor(order)] = torch.arange(len(order))
    return torch.cat(parts)[back.to(tower.device)]


@torch.no_grad()
def encode_texts(
    tower: TextTower,
    texts: Iterable[str],
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

    Raises UserError for another precision, and for what is no text, with its position (see `as_texts`).
    """
    texts = as_texts(texts)
    if precision not in PRECISIONS:
        raise UserError(f"--precision must be {' or '.join(PRECISIONS)}, got {precision!r}")
    room = prompt_room(kind, vectors)
    result = np.empty((len(texts), tower.dimension), dtype=np.float32)
    # Long texts first, so that a memory shortage shows at once; windows bound the memory of token ids
    for start in range(0, len(texts), BLOCK):
        window = texts[start : start + BLOCK]
        ids = tower.tokenize(window, side, prompt=room)
        lengths = [len(row) + room for row in ids]
        order = sorted(range(len(ids)), key=lengths.__getitem__, reverse=True)
        for batch in _batches(order, lengths, token_budget(tower.device, precision)):
            with torch.autocast(tower.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
                places = [start + index for index in batch]
                own = vectors[places] if vectors is not None and vectors.dim() == 4 else vectors
                part = embed(tower, [ids[index] for index in batch], side, kind, own)
            result[places] = part.float().cpu().numpy()
            if progress is not None:
                progress(len(batch))
    return result


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

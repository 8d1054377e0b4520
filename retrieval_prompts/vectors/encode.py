"""Texts -> vectors: length buckets, token budgets, and blocks on disk that no run computes twice.

A block file is named by everything that its vectors depend on (the encoder and the texts), so a changed corpus or
prompt never finds a stale one, an interrupted run goes on where it stopped, and two runs may share a folder.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.utils.checkpoint
from torch import Tensor

from retrieval_prompts.data.plain_texts import as_texts
from retrieval_prompts.errors import UserError, first_line, out_of_memory
from retrieval_prompts.towers.injection import embed, prompt_room
from retrieval_prompts.towers.several import embed_each, together
from retrieval_prompts.towers.text import Floats, TextTower

BLOCK = 2048  # texts
PADDING = 32  # of a budget's tokens one in so many may be padding: with more of it, two passes are faster than one
PRECISIONS = ("float32", "bfloat16")


def token_budget(device: torch.device, precision: str = "float32") -> int:
    """Padded tokens a forward pass: small enough for a CPU's caches, large enough to fill a GPU. See `_passes`."""
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

    def run(batch: list[int]) -> Tensor:
        rows = [ids[index] for index in batch]
        own = _own(vectors, batch)
        if saving and own is not None:
            once: Tensor = torch.utils.checkpoint.checkpoint(
                partial(embed, tower, rows, side, kind), own, use_reentrant=False
            )
            return once
        return embed(tower, rows, side, kind, own)

    parts = [part for _, part in _passes(tower, order, lengths, token_budget(tower.device), run)]
    if not parts:
        return torch.zeros(0, tower.dimension, device=tower.device)
    back = torch.empty(len(order), dtype=torch.long)
    back[torch.tensor(order)] = torch.arange(len(order))
    return torch.cat(parts)[back.to(tower.device)]


def embed_batch(tower: TextTower, ids: Sequence[list[int]], side: str, kind: str, vectors: Tensor | None) -> Tensor:
    """Token ids of the texts of a batch -> vectors (texts, dimension) in one pass, or in as many as memory wants."""
    room = prompt_room(kind, vectors)
    lengths = [len(row) + room for row in ids]

    def run(batch: list[int]) -> Tensor:
        return embed(tower, [ids[index] for index in batch], side, kind, _own(vectors, batch))

    size = _whole(lengths)
    return torch.cat([part for _, part in _passes(tower, range(len(ids)), lengths, size, run, padding=size)])


def pool_batch(tower: TextTower, features: dict[str, Any]) -> Tensor:
    """Features of a batch, as sentence-transformers makes them -> vectors (texts, dimension); see `embed_batch`."""
    mask = features.get("attention_mask")
    if mask is None:  # all texts in one row
        return tower.pool(features)
    B, T = mask.shape

    def run(batch: list[int]) -> Tensor:
        if len(batch) == B:
            return tower.pool(dict(features))
        several = {name for name, value in features.items() if isinstance(value, Tensor) and value.shape[:1] == (B,)}
        return tower.pool({name: value[batch] if name in several else value for name, value in features.items()})

    return torch.cat([part for _, part in _passes(tower, range(B), [T] * B, _whole([T] * B), run)])


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
    cut: Counter[str] | None = None,
) -> Floats:
    """Texts -> vectors (texts, dimension) in float32, as the model's own `encode` gives them.

    Args:
        precision: of the matrix products: "float32" or "bfloat16" (torch.autocast; weights stay as they are). With the
            latter a vector's cosine to its exact one is 0.9999 for MiniLM, and batch mates may move it as little.
        progress: called with the number of texts done since the last call.
        cut: its "texts" grow by the number of those that are longer than what the model reads.

    Raises:
        UserError: for another precision, for what is no text, with its position (see `as_texts`), and where the model
            gives numbers that are not finite.
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
        if cut is not None:
            full = tower.total_length(side, room)
            cut["texts"] += tower.longer([window[at] for at in order if lengths[at] >= full], side, full - room)

        def run(batch: list[int], ids: list[list[int]] = ids, start: int = start) -> Tensor:
            with torch.autocast(tower.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
                own = _own(vectors, [start + index for index in batch])
                return embed(tower, [ids[index] for index in batch], side, kind, own).float().cpu()

        for batch, part in _passes(tower, order, lengths, token_budget(tower.device, precision), run):
            places = [start + index for index in batch]
            result[places] = _finite(tower, part, places, vectors is not None)
            if progress is not None:
                progress(len(batch))
    return result


@torch.no_grad()
def encode_each(tower: TextTower, texts: Iterable[str], side: str, kind: str, prompts: Sequence[Tensor]) -> Floats:
    """Texts, each with a prompt of its own -> vectors (texts, dimension) in float32, as `encode_texts` gives them for
    each prompt alone. Prompts share passes where they may (see `towers.several`).

    Args:
        prompts: (layers, length, width) of each text, of one kind.

    Raises:
        UserError: as `encode_texts` does.
    """
    texts = as_texts(texts)
    result = np.empty((len(texts), tower.dimension), dtype=np.float32)
    for group in together(tower, kind, prompts):
        for start in range(0, len(group), BLOCK):
            places = group[start : start + BLOCK]
            own = [prompts[place] for place in places]
            rooms = [prompt_room(kind, prompt) for prompt in own]
            ids = _cut_to([texts[place] for place in places], tower, side, rooms)
            lengths = [len(row) + room for row, room in zip(ids, rooms, strict=True)]
            order = sorted(range(len(ids)), key=lengths.__getitem__, reverse=True)

            def run(batch: list[int], ids: list[list[int]] = ids, own: list[Tensor] = own) -> Tensor:
                chosen = [own[index] for index in batch]
                return embed_each(tower, [ids[index] for index in batch], side, kind, chosen).float().cpu()

            for batch, part in _passes(tower, order, lengths, token_budget(tower.device), run):
                there = [places[index] for index in batch]
                result[there] = _finite(tower, part, there, True)
    return result


def _cut_to(texts: Sequence[str], tower: TextTower, side: str, rooms: Sequence[int]) -> list[list[int]]:
    """Token ids of each text, cut to the room that its prompt leaves."""
    found: dict[int, list[int]] = {}
    for room in dict.fromkeys(rooms):
        there = [place for place, own in enumerate(rooms) if own == room]
        found |= dict(zip(there, tower.tokenize([texts[place] for place in there], side, prompt=room), strict=True))
    return [found[place] for place in range(len(texts))]


def _finite(tower: TextTower, part: Tensor, positions: Sequence[int], prompted: bool) -> Floats:
    """Vectors of texts at some positions.

    Raises:
        UserError: where they are not finite.
    """
    if not torch.isfinite(part).all():
        position = positions[int((~torch.isfinite(part).all(dim=1)).nonzero()[0])]
        small = "lower the strength of its prompt, or train it again" if prompted else "load it in float32"
        raise UserError(f"model {tower.name} gives no finite numbers for the text at position {position}; {small}")
    return part.numpy()


def _passes(
    tower: TextTower,
    order: Sequence[int],
    lengths: Sequence[int],
    budget: int,
    run: Callable[[list[int]], Tensor],
    *,
    padding: int | None = None,
) -> Iterator[tuple[list[int], Tensor]]:
    """Runs of an order, each with its vectors. Where memory does not hold one, it is run again in halves, and so is
    all that the tower encodes from then on; not where a backward pass will want all of them at once.

    Args:
        padding: the most of a run, in tokens; by default the share that `PADDING` says.

    Raises:
        UserError: where memory does not hold a single text.
    """
    padding = budget // PADDING if padding is None else padding
    done, batches = 0, _batches(order, lengths, _held(tower, budget), padding)
    while done < len(order):
        batch = next(batches)
        try:
            part = run(batch)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error) or torch.is_grad_enabled():
                raise
            failed: str | None = first_line(error)
        else:
            failed = None
            done += len(batch)
            yield batch, part
        if failed is not None:  # behind the handler, which holds on to what the pass had made
            _halve(tower, [lengths[index] for index in batch], failed)
            batches = _batches(order[done:], lengths, _held(tower, budget), padding)


def _own(vectors: Tensor | None, places: list[int]) -> Tensor | None:
    """The prompts of the texts at some places, where each text has one of its own."""
    return vectors[places] if vectors is not None and vectors.dim() == 4 else vectors


def _held(tower: TextTower, budget: int) -> int:
    return budget if tower.pass_tokens is None else min(budget, tower.pass_tokens)


def _halve(tower: TextTower, lengths: Sequence[int], reason: str) -> None:
    """Make the passes of a tower smaller than one that failed."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if len(lengths) == 1:
        raise UserError(
            f"the memory of {tower.device} does not hold a pass of model {tower.name} over one text of {lengths[0]} "
            f"tokens ({reason}); free some of it, use --device cpu, or cut the texts"
        )
    first, tokens = tower.pass_tokens is None, _whole(lengths)
    tower.pass_tokens = max(1, min(tokens, tower.pass_tokens or tokens) // 2)
    if first:
        warnings.warn(
            f"model {tower.name}: the memory of {tower.device} does not hold a pass over {len(lengths)} texts "
            f"({tokens:,} tokens); they are encoded in smaller passes from here on",
            UserWarning,
            stacklevel=2,
        )


def _whole(lengths: Sequence[int]) -> int:
    """The padded tokens of so many texts in one pass."""
    return max(1, max(lengths, default=1) * len(lengths))


def _batches(order: Sequence[int], lengths: Sequence[int], budget: int, padding: int) -> Iterator[list[int]]:
    """Cut an order sorted by length into runs whose padded size stays within the budget, and what of it is padding
    within another; one text at least."""
    batch: list[int] = []
    longest = tokens = 0
    for index in order:
        longest_now, tokens_now = max(longest, lengths[index]), tokens + lengths[index]
        size = longest_now * (len(batch) + 1)
        if batch and (size > budget or size - tokens_now > padding):
            yield batch
            batch, longest_now, tokens_now = [], lengths[index], lengths[index]
        batch.append(index)
        longest, tokens = longest_now, tokens_now
    if batch:
        yield batch

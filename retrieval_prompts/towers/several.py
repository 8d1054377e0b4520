"""Several prompts in one pass of a frozen tower: each text of a batch has one of its own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from retrieval_prompts.towers.injection import embed
from retrieval_prompts.towers.text import TextTower, padded


def embed_each(tower: TextTower, ids: list[list[int]], side: str, kind: str, prompts: Sequence[Tensor]) -> Tensor:
    """Token ids of a few texts, each with a prompt of its own -> vectors (batch, dimension).

    Prompts of one length are stacked. Input prompts of several lengths stand in one batch whose padding is behind each
    text, so that a text's positions are those it has alone.

    Args:
        ids: see `injection.embed`, each cut to the room that its own prompt leaves.
        prompts: (layers, length, width) of each text; their lengths are the same unless they `may_differ`.
    """
    if len({prompt.shape[1] for prompt in prompts}) == 1:
        return embed(tower, ids, side, kind, torch.stack(list(prompts)))
    lead, padding = tower.lead, tower.tokenizer.pad_token_id or 0
    rows = [row[:lead] + [padding] * len(own[0]) + row[lead:] for row, own in zip(ids, prompts, strict=True)]
    tokens, mask = (each.to(tower.device) for each in padded(rows, padding))
    there = torch.zeros_like(tokens, dtype=torch.bool)
    for number, own in enumerate(prompts):
        there[number, lead : lead + len(own[0])] = True
    embedded = tower.embeddings(tokens)  # (B, longest P + T, H)
    vectors = torch.cat([own[0] for own in prompts]).to(embedded.dtype) * getattr(tower.embeddings, "embed_scale", 1.0)
    embedded[there] = vectors
    return tower.pool({"inputs_embeds": embedded, "attention_mask": mask})


def may_differ(tower: TextTower, kind: str) -> bool:
    """Whether prompts of several lengths may stand in one batch: a prefix reaches all rows of a layer at once, and a
    model that leaves its prompt out of the pooling leaves out as many rows of each text."""
    return kind == "input" and tower.pools_prompt


def together(tower: TextTower, kind: str, prompts: Sequence[Tensor]) -> list[list[int]]:
    """The places of the prompts that may be in one batch, group by group."""
    if may_differ(tower, kind):
        return [list(range(len(prompts)))] if prompts else []
    groups: dict[int, list[int]] = defaultdict(list)
    for place, prompt in enumerate(prompts):
        groups[prompt.shape[1]].append(place)
    return list(groups.values())

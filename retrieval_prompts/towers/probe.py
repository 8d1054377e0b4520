"""What a model must keep for prompts to be attached to it, tried on the model at hand."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from retrieval_prompts.errors import UserError
from retrieval_prompts.towers.conventions import Conventions
from retrieval_prompts.towers.injection import PROBE_TEXTS, embed, prompt_room, prompt_shape, record_prefix
from retrieval_prompts.towers.text import TextTower


def verify(tower: TextTower, kind: str) -> None:
    """Probe the actual model; raises UserError with its name and the reason when a promise does not hold.

    1. An empty prompt gives exactly the vectors of the frozen model as sentence-transformers computes them.
    2. With a prompt, vectors do not depend on batch mates or padding (relative difference of 1e-4 at most in
       float32).
    3. Every vector of the prompt takes part: each one receives a gradient.
    """

    def refuse(reason: str) -> None:
        raise UserError(f"model {tower.name} cannot take {kind} prompts: {reason}")

    texts = list(PROBE_TEXTS)
    shape = prompt_shape(tower, kind, 0)
    with torch.no_grad():
        ids = tower.tokenize(texts, "query")
        empty = torch.zeros(shape, device=tower.device)
        words = tower.text_prompt("query")
        for text, row in zip(texts, ids, strict=True):
            features = tower.sentence_transformer.preprocess([text], prompt=words or None, task="query")
            features = {
                key: value.to(tower.device) if isinstance(value, Tensor) else value for key, value in features.items()
            }
            frozen = tower.sentence_transformer(features, task="query")["sentence_embedding"]
            if not torch.equal(frozen[:, : tower.dimension], embed(tower, [row], "query", kind, empty)):
                refuse("an empty prompt changes its vectors")
    if kind == "prefix":
        vectors = record_prefix(tower, ids[1])[:, :3]
    else:
        vectors = tower.embeddings.weight[torch.tensor(ids[1][:3])][None].float()
    vectors = vectors.clone().requires_grad_()
    room = prompt_room(kind, vectors)
    ids = tower.tokenize(texts, "query", prompt=room)
    together = embed(tower, ids, "query", kind, vectors)
    alone = torch.cat([embed(tower, [row], "query", kind, vectors) for row in ids])
    tolerance = 1e-4 if together.dtype == torch.float32 else 3e-2
    difference = ((together - alone).norm(dim=1) / alone.norm(dim=1)).max().item()
    if not difference <= tolerance:
        refuse(f"a vector depends on its batch mates (relative difference {difference:.1e})")
    direction = torch.linspace(-1, 1, alone.shape[1], device=alone.device, dtype=alone.dtype)
    (gradient,) = torch.autograd.grad((alone * direction).sum(), vectors)
    reached = gradient.abs().sum(dim=2) > 0  # (layers, length)
    if not bool(reached.all()):
        refuse(f"only {int(reached.sum())} of {reached.numel()} prompt vectors reach the model's output")


def check_room(tower: TextTower, side: str, room: int) -> None:
    """Say where a prompt of `room` vectors takes tokens from the text.

    Raises:
        UserError: where next to none are left.
    """
    before, after = tower.text_length(side), tower.total_length(side, room) - room
    if after >= before:
        return
    if after <= tower.lead + 8:
        raise UserError(
            f"a {side} prompt of {room} leaves {max(after, 0)} of {before} tokens to the text; use a smaller --length"
        )
    warnings.warn(
        f"{tower.name} has {tower.positions} positions: with a {side} prompt of {room} its texts are cut at {after} "
        f"tokens, not {before}; a prefix (--kind prefix) takes up none",
        UserWarning,
        stacklevel=4,
    )


def check_made(tower: TextTower, base: Mapping[str, Any], source: str) -> None:
    """Raises UserError where prompts, whose description has this `base`, were made for another model, or with other
    words."""
    if tower.made(base):
        return
    if (differing := tower.conventions.differing(Conventions.recorded(base))) and base["name"] == tower.name:
        raise UserError(f"{source} were made with {differing}; leave that to the prompts, or tune new ones")
    raise UserError(
        f"{source} belong to {base.get('name')} (fingerprint {base['fingerprint'][:12]}, dimension "
        f"{base['dimension']}), not to {tower.name} ({tower.fingerprint[:12]}, dimension {tower.dimension}); "
        "load that model, or tune prompts for this one"
    )

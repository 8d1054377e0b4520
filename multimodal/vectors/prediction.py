"""What prompts say of pictures: logits, a batch at a time. Knows no head and no temperature."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from multimodal.prompts.contexts import Classes, Prompts, logits, projected, still
from multimodal.prompts.methods import Method
from multimodal.towers.clip import Clip
from multimodal.towers.image import encode_with_rows
from retrieval_prompts.prompts.strength import between

Positions = NDArray[np.int64]
BATCH = 64  # images, or class texts by image, at once


@torch.no_grad()
def predict(
    clip: Clip,
    built: Method,
    known: Classes,
    data: Any,
    positions: Positions,
    strength: float = 1.0,
    trained: Sequence[str] = (),
) -> Tensor:
    """Logits (n, C) of images under a method's prompts, without temperature.

    Args:
        data: the images; see `training.classes.Images`.
        strength: from 0 (the frozen model) to 1.
        trained: classes of the training, where the method tells them from others.
    """
    parts: list[Tensor] = []
    text: Tensor | None = None
    for start in range(0, len(positions), BATCH):
        some = positions[start : start + BATCH]
        first_view = np.zeros(len(some), dtype=np.int64)
        frozen = data.features(some, first_view)
        if strength == 0:
            parts.append(logits(clip.scale, frozen, known.frozen))
            continue
        prompts = still(built.prompter, known, frozen)
        if text is None or prompts.per_image:
            text = known.features(prompts)
            text = text if prompts.texts else mixed(known.frozen, text, strength)
        seen, rows = frozen, None
        if prompts.visual:
            seen, rows = encode_with_rows(clip, data.pixels(some, first_view), prompts.visual, prompts.last)
            seen = seen if prompts.project else mixed(frozen, seen, strength)
        said = logits(clip.scale, projected(seen, prompts.project), text)
        if prompts.project and strength < 1:  # two spaces: what is mixed is what they say
            said = torch.lerp(logits(clip.scale, frozen, known.frozen), said, strength)
        if rows is not None:
            said = _of_both(said, logits(clip.scale, rows, text), prompts, strength, known.names, trained)
        parts.append(said)
    return torch.cat(parts) if parts else torch.zeros(0, len(known))


def mixed(frozen: Tensor, tuned: Tensor, strength: float) -> Tensor:
    """Features of unit length at a strength above 0."""
    return tuned if strength == 1 else between(frozen, tuned, strength)


def _of_both(
    said: Tensor, by_rows: Tensor, prompts: Prompts, strength: float, names: Sequence[str], trained: Sequence[str]
) -> Tensor:
    """(B, C): what the rows say counts for classes of the training alone."""
    ours = set(trained)
    own = torch.tensor([1 - (1 - prompts.own) * strength if name in ours else 1.0 for name in names]).to(said)
    return own * said + (1 - own) * by_rows

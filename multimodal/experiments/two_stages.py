"""2SFS (Farina et al. 2025, Rethinking Few-Shot Adaptation of Vision-Language Models in Two Stages, arXiv 2503.11609):
first what the towers look for, then a classifier of the classes at hand. On a copy of the model.

    1. weight and bias of each block's layer norms, in both towers, for 60 % of the steps    loss = cross-entropy
    2. one vector a class, begun at its text as it is by then; the towers stay               loss = cross-entropy

Classes of the training are answered by their own vectors, new ones by the adapted text tower. The norms before and
behind the blocks stay: the authors' code gives them to the optimizer and then freezes them. The head "two-stage" is
the second stage over frozen features, behind a prompt.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal.experiments.adapting import Crops, descend, said
from multimodal.experiments.clip_lora import loss
from multimodal.towers.clip import Clip
from retrieval_prompts.errors import UserError

if TYPE_CHECKING:
    from multimodal.data.pictures import Picture

STEPS, FIRST = 300, 0.6  # a shot; the share of the first stage


@dataclass(frozen=True)
class Stages:
    """A copy of the model, the texts of the training's classes, and their vectors (C, D)."""

    clip: Clip
    texts: tuple[str, ...]
    weight: Tensor


def fit(
    clip: Clip,
    pictures: Sequence[Picture],
    labels: NDArray[np.int64],
    texts: Sequence[str],
    *,
    seed: int = 1,
    steps: int | None = None,
) -> Stages:
    """Both stages.

    Args:
        labels: (n,) positions in `texts`.
        texts: (C,) the classes' names in a template.
        steps: of both; None: 300 for each shot of a class.

    Raises:
        UserError: when a tower is not open_clip's own.
    """
    adapted, crops = with_norms(clip), Crops(clip, pictures, labels)
    batches = crops.batches(STEPS * int(np.bincount(labels).max()) if steps is None else steps, seed)
    norms = [each for each in adapted.model.parameters() if each.requires_grad]
    first = int(FIRST * len(batches))
    descend(norms, batches[:first], lambda batch: loss(adapted, texts, *crops.of(batch)), "2sfs", seed)
    adapted.model.requires_grad_(False)
    weight = nn.Parameter(adapted.encode_texts(texts))
    descend([weight], batches[first:], lambda batch: classified(adapted, weight, *crops.of(batch)), "2sfs", seed)
    return Stages(adapted, tuple(texts), weight.detach())


def classified(adapted: Clip, weight: Tensor, images: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of images (b, 3, H, W) and labels (b,) among class vectors (C, D) of any length."""
    with torch.no_grad():
        seen = adapted.encode_images(images)
    return F.cross_entropy(adapted.scale * seen @ F.normalize(weight, dim=-1).T, labels)


def logits(stages: Stages, pictures: Sequence[Picture], texts: Sequence[str]) -> NDArray[np.float32]:
    """(n, C) of pictures, encoded now, and the classes' names in a template."""
    vectors = dict(zip(stages.texts, F.normalize(stages.weight, dim=-1), strict=True))
    if new := [text for text in texts if text not in vectors]:
        vectors |= dict(zip(new, stages.clip.encode_texts(new), strict=True))
    return said(stages.clip, pictures, torch.stack([vectors[text] for text in texts]), "2sfs")


def with_norms(clip: Clip) -> Clip:
    """A copy whose blocks' layer norms, and nothing else, ask for gradients.

    Raises:
        UserError: when a tower is not open_clip's own.
    """
    model = copy.deepcopy(clip.model)
    found = {
        name: each
        for name, each in model.named_modules()
        if ".resblocks." in f".{name}" and isinstance(each, nn.LayerNorm)
    }
    for tower, visual in (("image", True), ("text", False)):
        if not any(name.startswith("visual.") == visual for name in found):
            raise UserError(
                f"2sfs adapts the layer norms of open_clip's own transformers, and the {tower} tower of {clip.name} is "
                "another; leave it out, or choose another model, such as ViT-B-32"
            )
    made = Clip(model, clip.preprocess, clip.tokenizer, clip.name, clip.pretrained)
    for norm in found.values():
        norm.requires_grad_(True)
    return made

"""What holds prompted vectors of general texts near the frozen ones, so that a prompt forgets less elsewhere.

Distillation from the frozen model (Hinton et al. 2015) on texts that have nothing to do with the data: KgCoOp (Yao et
al. 2023, eq. 5) does the same with class names.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.training.keeping.general import general_texts
from retrieval_prompts.training.plan import Batch
from retrieval_prompts.training.settings import TuneSettings
from retrieval_prompts.vectors.encode import encode_texts

STREAM = 1  # so that this draw is none of those that a step makes for its documents


def frozen_vectors(biencoder: BiEncoder, sides: Iterable[str]) -> dict[str, Tensor]:
    """Side -> the frozen vectors of the general texts (texts, dimension)."""
    tower, texts = biencoder.tower, general_texts()
    return {side: torch.from_numpy(encode_texts(tower, texts, side)).to(tower.device) for side in sides}


def distance(biencoder: BiEncoder, frozen: Mapping[str, Tensor], size: int, seed: int) -> Callable[[int], Tensor]:
    """Step -> the mean of 1 - cosine(prompted, frozen) over a draw of general texts, summed over the sides.

    Args:
        frozen: see `frozen_vectors`; of the sides whose prompts are trained.
        size: texts a step. Which ones depends on seed and step alone.
    """
    texts = general_texts()
    ids = {side: biencoder.tokenize(texts, side) for side in frozen}

    def of(step: int) -> Tensor:
        drawn = np.random.default_rng([seed, step, STREAM]).choice(len(texts), min(size, len(texts)), replace=False)
        total = torch.zeros((), device=biencoder.tower.device)
        for side, vectors in frozen.items():
            prompted = biencoder.embed([ids[side][text] for text in drawn], side).float()
            kept = vectors[torch.from_numpy(drawn).to(vectors.device)]
            total = total + (1 - functional.cosine_similarity(prompted, kept)).mean()
        return total

    return of


def keeping(
    loss: Callable[[Batch], Tensor],
    biencoder: BiEncoder,
    frozen: Mapping[str, Tensor],
    settings: TuneSettings,
    autocast: Callable[[], AbstractContextManager[Any]],
) -> Callable[[Batch], Tensor]:
    """A loss, and `settings.keep` times how far the trained sides have moved general texts (see `distance`).

    Args:
        frozen: see `distance`.
        autocast: the precision of the model's products.
    """
    moved = distance(biencoder, frozen, math.ceil(settings.batch_size / 2), settings.seed)

    def kept(batch: Batch) -> Tensor:
        with autocast():
            far = moved(batch.step)
        return loss(batch) + settings.keep * far

    return kept

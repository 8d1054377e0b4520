"""What a student of a larger CLIP learns from: pictures without labels, and what the teacher says of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from torch import Tensor

from multimodal.data.pictures import Picture, load_pictures
from multimodal.prompts.contexts import Classes, logits
from multimodal.prompts.methods import Method
from multimodal.vectors.image_data import CachedImages, Positions

if TYPE_CHECKING:
    from multimodal.prompts.teacher import Teacher
    from multimodal.training.settings import Settings


class Lessons:
    """Pictures, and the frozen teacher's predictions for them. Both models' features are computed once and cached.

    Args:
        built: a method with a teacher; its projector is started on these pictures.
        pictures: without labels; those that cannot be read are left out, counted and named in a DataWarning.
    """

    def __init__(
        self, built: Method, known: Classes, pictures: Sequence[Picture], settings: Settings, cache: Path | None
    ) -> None:
        teacher = built.teacher
        assert teacher is not None
        self.images = CachedImages(known.clip, pictures, settings.cached_views, cache)
        self.taught = CachedImages(teacher.clip, self.images.pictures, settings.cached_views, cache)
        self.scale, self.text = teacher.clip.scale, teacher.vectors(known.names)
        everything = np.arange(len(self.images.kept))
        first = np.zeros_like(everything)
        own, taught = (each.features(everything, first) for each in (self.images, self.taught))
        cast(Any, built.prompter).start(own, taught)

    def __len__(self) -> int:
        return len(self.images.kept)

    def said(self, positions: Positions, views: Positions) -> Tensor:
        """(b, C): the teacher's logits."""
        return logits(self.scale, self.taught.features(positions, views), self.text)


def right(
    images: CachedImages, labels: Tensor, known: Classes, teacher: Teacher, cache: Path | None
) -> dict[str, float]:
    """The share of labelled images that the frozen teacher, and the frozen student by its own texts, answer rightly."""
    everything = np.arange(len(images.kept))
    first = np.zeros_like(everything)
    taught = CachedImages(teacher.clip, images.pictures, 1, cache).features(everything, first)
    said = {
        "teacher": taught @ teacher.vectors(known.names).T,
        "zero-shot": images.features(everything, first) @ known.frozen.T,
    }
    return {name: float((each.argmax(dim=1) == labels).float().mean()) for name, each in said.items()}


def unlabelled(settings: Settings) -> list[Picture] | None:
    """The pictures of the settings' folder. Raises UserError."""
    return None if settings.unlabelled is None else load_pictures(settings.unlabelled)

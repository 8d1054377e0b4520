"""Test-time tuning of many pictures: each gets a prompt of its own, tuned on its views, and none learns of another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from multimodal.classifier import PromptClassifier
from multimodal.data.inputs import as_names
from multimodal.prompts.contexts import Classes, still
from multimodal.prompts.methods import build_method
from multimodal.prompts.methods.tpt import adapt
from multimodal.vectors.features import image_features
from retrieval_prompts.errors import UserError

if TYPE_CHECKING:
    from multimodal.data.pictures import Picture
    from multimodal.towers.clip import Clip
    from multimodal.training.settings import Adaptation

USE = "use a folder of coop, kgcoop, prograd, deep or tcp, or zero-shot"


@dataclass(frozen=True)
class Adapted:
    """What is said of one picture.

    Args:
        probabilities: (C,) under the picture's own prompt.
        before: (C,) under the prompt that it was tuned from.
    """

    picture: Picture
    probabilities: NDArray[np.float32]
    before: NDArray[np.float32]


def adapted(
    classifier: PromptClassifier,
    pictures: Sequence[Picture],
    how: Adaptation,
    classes: Sequence[str] | None = None,
    *,
    cache: Path | None = None,
) -> Iterator[Adapted]:
    """Each picture that can be read, under a prompt tuned on its views (TPT, Shu et al. 2022); no head answers.

    Nothing but the picture's content and the prompt decides its answer: neither the order nor the other pictures.

    Raises:
        UserError: for prompts that no text context can be tuned of, and for a strength below 1.
    """
    clip, known = classifier.clip, classifier.known_classes(classes)
    prompts = still(classifier.method.prompter, known, torch.zeros(1, clip.dimension, device=clip.device))
    name = classifier.settings.method
    if prompts.per_image or prompts.visual:
        why = "depend on the picture already" if prompts.per_image else "enter the image tower"
        raise UserError(f"--adapt tpt tunes a context before the class names, and the prompts of {name} {why}; {USE}")
    if classifier.strength != 1:
        raise UserError(
            f"--adapt tpt starts at the whole prompt, got strength {classifier.strength:g}; pass --strength 1, or "
            "zero-shot in the place of the folder"
        )
    found = image_features(clip, pictures, views=how.views, cache=cache)
    text = known.features(prompts)
    for row, position in enumerate(tqdm(found.kept, desc="adapt", unit="image", delay=1)):
        views = found.take(np.full(how.views, row), np.arange(how.views)).to(clip.device)
        logits = adapt(
            clip,
            known,
            prompts.context,
            views,
            deep=prompts.deep,
            steps=how.steps,
            learning_rate=how.learning_rate,
            confident=how.confident,
        )
        plain = (clip.scale * views[:1] @ text.T).float()[0]
        after, before = ((each / classifier.temperature).softmax(dim=-1).cpu().numpy() for each in (logits, plain))
        yield Adapted(pictures[position], after, before)


def untuned(clip: Clip, classes: Sequence[str]) -> PromptClassifier:
    """Zero-shot, as a prompt that nothing has tuned: the words "a photo of a" before the class names."""
    classifier = PromptClassifier(clip, head="none")
    known = Classes(clip, as_names(classes), classifier.settings)
    classifier.use(build_method(clip, classifier.settings), known)
    return classifier

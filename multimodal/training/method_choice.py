"""Which method of prompt learning fits these images, by shots that are held out. Test pictures are never asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from multimodal.classifier import PromptClassifier
from multimodal.data.inputs import as_pictures, label_numbers
from multimodal.data.pictures import Picture
from multimodal.prompts.contexts import Classes
from multimodal.prompts.methods import build_method
from multimodal.prompts.settings import AUTO, QUICK
from multimodal.towers.clip import Clip
from multimodal.training.classes import Task, found_classes, out_of_fold
from multimodal.training.head_choice import Part
from multimodal.training.settings import Settings
from multimodal.vectors.image_data import CachedImages
from retrieval_prompts.errors import UserError


@dataclass(frozen=True)
class Tried:
    """A method on shots that it was not trained on.

    Args:
        hits: (n,) whether the prompt alone answered right, for each of them.
        parts: what it said of them, which calibrates it too.
    """

    method: str
    hits: np.ndarray
    parts: Sequence[Part] = ()

    @property
    def right(self) -> float:
        return float(self.hits.mean())


def settle(
    classifier: PromptClassifier, pictures: Any, labels: Any, classes: Sequence[str] | None, cache: Path | None = None
) -> tuple[str, Sequence[Part]]:
    """Where the method was left to "auto", give the classifier the settings of one that held-out shots choose.

    Returns why it is that one, in a line, and its answers for these shots; neither where nothing was to choose.

    Raises:
        UserError: without labels.
    """
    asked = classifier.asked
    if asked.method != AUTO:
        return "", ()
    if labels is None:
        raise UserError("the method auto is chosen by labelled images; give their labels, or name a method")
    items = as_pictures(pictures)
    names = tuple(classes) if classes is not None else found_classes(labels)
    numbers = label_numbers(labels, names, len(items))
    tried = try_methods(classifier.clip, items, numbers, names, classifier.asked_with, cache=cache)
    if not tried:
        classifier.settings = classifier.asked_with(QUICK[0])
        return f"{QUICK[0]}: one image a class, none held out to choose by", ()
    best, why = taken(tried)
    classifier.settings = classifier.asked_with(best.method)
    return why, best.parts


def try_methods(
    clip: Clip,
    pictures: Sequence[Picture],
    labels: np.ndarray,
    names: Sequence[str],
    of_method: Callable[[str], Settings],
    methods: Sequence[str] = QUICK,
    *,
    cache: Path | None = None,
) -> list[Tried]:
    """Train each method on halves of the shots, and ask it for the others; empty where a class has one image.

    Args:
        of_method: the settings of each.
    """
    found = []
    for method in methods:
        settings = of_method(method)
        data = CachedImages(clip, list(pictures), settings.cached_views, cache)
        known, numbers = Classes(clip, tuple(names), settings), labels[data.kept]
        task = Task(clip, build_method(clip, settings, len(names)), known, data, numbers, settings)
        parts = out_of_fold(task, method)
        if not parts:
            return []
        hits = np.concatenate([part.logits.argmax(dim=1).numpy() == numbers[part.held] for part in parts])
        found.append(Tried(method, hits, parts))
    return found


def taken(tried: Sequence[Tried]) -> tuple[Tried, str]:
    """(the one that was right most often, why, in a line)"""
    best = max(tried, key=lambda each: each.right)
    rest = sorted((each for each in tried if each is not best), key=lambda each: -each.right)
    line = f"{best.method}: {100 * best.right:.1f} % of {len(best.hits):,} held-out shots right"
    if rest:
        line += f", {', '.join(f'{each.method} {100 * each.right:.1f}' for each in rest)}"
        change = best.hits.astype(float) - rest[0].hits
        if change.mean() <= change.std() / np.sqrt(len(change)):
            line += f" ({rest[0].method} may be as good)"
    return best, f"{line}; no test picture was asked"

"""The page of `classify`: each picture with its likeliest classes, those answered wrong first. Knows no model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from multimodal.data.pictures import Picture, short_names
from multimodal.data.templates import spoken
from multimodal.evaluation.confusion import Confusion, listed
from multimodal.report.gallery import Bar, Figure, page
from retrieval_prompts.evaluation.words import points

UNSURE = 0.5  # probability below which an answer is called unsure
NAMED = 5  # pictures


@dataclass(frozen=True)
class Answers:
    """What was answered.

    Args:
        system: what answers, as a sentence begins.
        classes: as written in the data.
        probabilities: (n, C).
        right: (n,) positions in `classes`; None: not known.
    """

    system: str
    pictures: Sequence[Picture]
    classes: Sequence[str]
    probabilities: NDArray[np.float32]
    right: Sequence[int] | None = None

    @property
    def best(self) -> NDArray[np.int64]:
        return self.probabilities.argmax(axis=1)

    @property
    def confusion(self) -> Confusion | None:
        return None if self.right is None else Confusion(self.classes, np.array(self.right), self.best)

    def sentences(self) -> list[str]:
        """Which system, how sure it is, and what to label next."""
        count, sure = len(self.pictures), self.probabilities.max(axis=1)
        if not count:
            return []
        expected = f"{self.system} answers, and expects to be right on about {sure.sum():,.0f} of {count:,} pictures"
        if count == 1:
            expected = f"{self.system} answers, and is {points(float(sure[0]))} % sure"
        found = self.confusion
        if found is None:
            said = [f"{expected}."]
            least = np.argsort(sure, kind="stable")[: min(NAMED, int((sure < UNSURE).sum()))]
            if len(least):
                names = short_names([picture.place for picture in self.pictures])
                shown = ", ".join(f"{names[at]} ({points(float(sure[at]))} %)" for at in least.tolist())
                said.append(
                    f"It is less than half sure of {int((sure < UNSURE).sum()):,}. To tune it further, label those"
                    f" that it is least sure of first: {shown}."
                )
            return said
        right = f"{found.hits.sum():,} ({points(found.accuracy)} %)"
        said = [f"{expected}; by the names of the folders it is on {right}."]
        if hardest := found.hardest():
            said.append(f"Label more pictures of {listed([found.told(at) for at in hardest])}.")
        return said


def answers_page(found: Answers, facts: Sequence[str], top_k: int, before: Mapping[int, str]) -> str:
    """The page as HTML.

    Args:
        before: what was answered for a picture before its prompt was tuned, where it is another class.
    """
    names = short_names([picture.place for picture in found.pictures])
    figures = []
    for row in _order(found):
        values = found.probabilities[row]
        right = None if found.right is None else found.right[row]
        shown = values.argsort()[::-1][:top_k].tolist()
        if right is not None and right not in shown:
            shown.append(right)
        bars = tuple(Bar(spoken(found.classes[at]), float(values[at]), at == right) for at in shown)
        picture = found.pictures[row]
        hit = None if right is None else int(found.best[row]) == right
        note = f"before: {before[row]}" if row in before else ""
        figures.append(Figure(picture.load, names[row], "", note, bars, hit, picture.place))
    heading = f"{len(figures):,} images classified" if len(figures) != 1 else "1 image classified"
    return page(heading, figures, lead=found.sentences(), lines=facts)


def _order(found: Answers) -> list[int]:
    """Those answered wrong first, the surest of them at the top; as given where that is not known."""
    if found.right is None:
        return list(range(len(found.pictures)))
    hit = found.best == np.array(found.right)
    sure = found.probabilities.max(axis=1)
    return sorted(range(len(hit)), key=lambda row: (bool(hit[row]), sure[row] if hit[row] else -sure[row]))

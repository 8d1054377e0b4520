"""Which classes are taken for which: counts by class, the most confused ones, and the words for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from multimodal.data.templates import spoken

NAMED = 3  # classes in a sentence


@dataclass(frozen=True)
class Confusion:
    """Answers for pictures whose class is known.

    Args:
        classes: their names, as written in the data.
        right, answers: (n,) positions in `classes`.
    """

    classes: Sequence[str]
    right: NDArray[np.int64]
    answers: NDArray[np.int64]

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """(C, C): pictures of a row's class that were answered with a column's."""
        size = len(self.classes)
        return np.bincount(self.right * size + self.answers, minlength=size * size).reshape(size, size)

    @property
    def totals(self) -> NDArray[np.int64]:
        """(C,) pictures of each class."""
        return self.counts.sum(axis=1)

    @property
    def hits(self) -> NDArray[np.int64]:
        """(C,) those of them that were answered right."""
        return self.counts.diagonal()

    @property
    def accuracy(self) -> float:
        return float(self.hits.sum() / max(1, len(self.right)))

    def hardest(self, most: int = NAMED) -> list[int]:
        """The classes with the most pictures answered wrong; of equal ones that with the fewest pictures first."""
        wrong = self.totals - self.hits
        order = sorted(range(len(self.classes)), key=lambda at: (-wrong[at], self.totals[at]))
        return [at for at in order[:most] if wrong[at]]

    def taken_for(self, at: int) -> tuple[int, int] | None:
        """(the class that a class is taken for most often, how often); None where it never is."""
        row = self.counts[at].copy()
        row[at] = 0
        other = int(row.argmax())
        return (other, int(row[other])) if row[other] else None

    def pairs(self, most: int) -> list[tuple[int, int, int]]:
        """(right class, answer, pictures) of the most frequent mistakes."""
        wrong = self.counts.copy()
        np.fill_diagonal(wrong, 0)
        order = np.argsort(-wrong, axis=None, kind="stable")[:most]
        found = [(*divmod(int(at), len(self.classes)), int(wrong.flat[at])) for at in order]
        return [pair for pair in found if pair[2]]

    def most_confused(self, most: int) -> list[int]:
        """The classes of the most frequent mistakes, at most so many, in their own order; all where they fit."""
        size = len(self.classes)
        if size <= most:
            return list(range(size))
        chosen: dict[int, None] = {}
        for right, answer, _ in self.pairs(size * size):
            if len({*chosen, right, answer}) <= most:
                chosen |= {right: None, answer: None}
        return sorted(chosen)

    def told(self, at: int, labelled: Mapping[str, int] | None = None) -> str:
        """A class in a sentence: how often it was right, and what it is taken for.

        Args:
            labelled: class -> pictures that there are to learn from.
        """
        said = [f"{self.hits[at]:,} of {self.totals[at]:,} right"]
        if (other := self.taken_for(at)) is not None and other[1] > 1:
            said.append(f"{other[1]:,} times taken for {spoken(self.classes[other[0]])}")
        if labelled is not None and self.classes[at] in labelled:
            said.append(f"{labelled[self.classes[at]]:,} labelled")
        return f"{spoken(self.classes[at])} ({'; '.join(said)})"

    def next_labels(self, labelled: Mapping[str, int] | None = None, shots: int | None = None) -> str:
        """What to label next, in a sentence or two; empty where nothing was answered wrong.

        Args:
            labelled: as for `told`.
            shots: pictures of a class that were learned from; None: all.
        """
        hardest = self.hardest()
        if not hardest:
            return ""
        line = f"Label more of these next: {listed([self.told(at, labelled) for at in hardest])}."
        known = labelled or {}
        spare = [at for at in hardest if shots is not None and known.get(self.classes[at], 0) > shots]
        if spare:
            names = listed([spoken(self.classes[at]) for at in spare])
            line += f" Of {names} there are more than the {shots} that were learned from: try --shots all first."
        return line


def interval(right: int, count: int) -> tuple[float, float]:
    """The 95 % interval of the share that is right of `count` pictures (Wilson 1927).

    >>> [round(edge, 3) for edge in interval(5, 10)]
    [0.237, 0.763]
    """
    from scipy.stats import binomtest

    found = binomtest(right, count).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


def listed(names: Sequence[str]) -> str:
    """
    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)

"""Which classes are taken for which: counts by hand, and the words for them."""

from __future__ import annotations

import numpy as np
import pytest

from multimodal.evaluation.confusion import Confusion, interval

CLASSES = ("sea_animal", "dog", "fox", "owl")
RIGHT = [0, 0, 0, 0, 1, 1, 2, 2]
ANSWERS = [0, 1, 1, 2, 1, 0, 2, 1]


@pytest.fixture
def found() -> Confusion:
    return Confusion(CLASSES, np.array(RIGHT), np.array(ANSWERS))


def test_counts(found: Confusion) -> None:
    assert found.counts.tolist() == [[1, 2, 1, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    assert (found.totals.tolist(), found.hits.tolist(), found.accuracy) == ([4, 2, 2, 0], [1, 1, 1, 0], 3 / 8)
    assert found.taken_for(0) == (1, 2) and found.taken_for(3) is None
    assert found.pairs(2) == [(0, 1, 2), (0, 2, 1)] and len(found.pairs(100)) == 4
    assert found.hardest() == [0, 1, 2], "a class without pictures is not known to be hard"


def test_what_to_label_next(found: Confusion) -> None:
    assert found.next_labels() == (
        "Label more of these next: sea animal (1 of 4 right; 2 times taken for dog), dog (1 of 2 right) and fox (1 of 2"
        " right)."
    )
    line = found.next_labels({"sea_animal": 20, "dog": 3}, 16)
    assert "sea animal (1 of 4 right; 2 times taken for dog; 20 labelled), dog (1 of 2 right; 3 labelled)" in line
    assert line.endswith(" Of sea animal there are more than the 16 that were learned from: try --shots all first.")
    everything = Confusion(CLASSES, np.array([0, 1]), np.array([0, 1]))
    assert everything.next_labels() == ""


def test_of_many_classes_the_most_confused_are_shown() -> None:
    right = np.repeat(np.arange(101), 2)
    answers = right.copy()
    answers[[20, 21, 100]] = [70, 70, 3]  # of class 10 twice 70, of class 50 once 3
    found = Confusion([f"c{at}" for at in range(101)], right, answers)
    assert found.most_confused(16) == [3, 10, 50, 70]
    assert found.most_confused(3) == [10, 70], "a pair that does not fit is left out whole"
    assert found.most_confused(101) == list(range(101))


def test_the_interval_of_a_share() -> None:
    assert interval(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    low, high = interval(20, 20)
    assert high == 1.0 and low == pytest.approx(1 / (1 + 1.96**2 / 20), abs=1e-4)

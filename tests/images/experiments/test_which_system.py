"""Which system to use, in a sentence: what is saved, unless a test says that another is better."""

from __future__ import annotations

import numpy as np
import pytest

from multimodal.experiments.results import ClassResult
from multimodal.experiments.systems import ClassGroup
from multimodal.experiments.which_system import advice, comparisons, headlines, next_labels


def result(part: str = "", **rights: float) -> ClassResult:
    """Systems that are right on the first share of 100 pictures."""
    group = ClassGroup(part, ["a", "b"], [], np.arange(100), np.zeros(100, dtype=int))
    systems = {}
    for name, share in rights.items():
        system = name.replace("_", "-")
        group.right[system, 1] = np.arange(100) < 100 * share
        systems[system] = {part or "accuracy": share}
    return ClassResult("pets", "clip", None, "few-shot", systems=systems, tests=comparisons([group]))


def _lines(found: ClassResult) -> list[str]:
    return list(advice(found).values())


def test_comparisons_by_pictures() -> None:
    tests = result(zero_shot=0.5, tuned=0.6, linear_probe=0.8).tests[""]
    assert tests.keys() == {"tuned_vs_zero-shot", "tuned_vs_linear-probe"}
    assert tests["tuned_vs_zero-shot"].difference == pytest.approx(0.1)
    assert (tests["tuned_vs_linear-probe"].helped, tests["tuned_vs_linear-probe"].hurt) == (0, 20)


def test_several_seeds_are_averaged_by_picture() -> None:
    group = ClassGroup("", ["a", "b"], [], np.arange(4), np.zeros(4, dtype=int))
    group.right["zero-shot", None] = np.array([1, 1, 0, 0], dtype=bool)
    group.right["tuned", 1] = np.array([1, 1, 1, 0], dtype=bool)
    group.right["tuned", 2] = np.array([0, 1, 1, 0], dtype=bool)
    test = comparisons([group])[""]["tuned_vs_zero-shot"]
    assert (test.difference, test.helped, test.hurt) == (0.125, 1, 1)


def test_a_probe_that_is_better_is_said_to_be() -> None:
    (line,) = _lines(result(zero_shot=0.4, tuned=0.6, linear_probe=0.85))
    assert line.startswith(
        "For these classes use the linear probe: tune with --head probe saves one (85.0 %). "
        "The linear probe is 25.0 points of accuracy better than the tuned prompt (85.0 against 60.0; 95 % interval "
    )
    assert "p = 0.0001" in line and line.count("points of accuracy") == 1


def test_what_is_saved_where_nothing_else_is_better() -> None:
    (line,) = _lines(result("base", zero_shot=0.4, tuned=0.6, linear_probe=0.85, with_head=0.86))
    assert line.startswith("For the base classes use what is saved: classify answers with the head (86.0 %). ")
    assert "too few to tell the head from the linear probe" in line
    assert "The tuned prompt is 25.0 points of accuracy worse than the linear probe" in line, "tested, too"


def test_a_difference_that_may_be_noise_changes_nothing() -> None:
    (line,) = _lines(result(zero_shot=0.6, tuned=0.58))
    assert line.startswith("For these classes use what is saved: classify answers with the prompt (58.0 %). ")
    assert "too few to tell the tuned prompt from zero-shot" in line


def test_zero_shot_where_tuning_hurts() -> None:
    (line,) = _lines(result("new", zero_shot=0.6, tuned=0.4))
    assert line.startswith("For the new classes use zero-shot: classify --strength 0 (60.0 %).")


def test_new_classes_are_the_prompts_also_where_there_is_a_head() -> None:
    (line,) = _lines(result("new", zero_shot=0.4, tuned=0.6, with_head=0.6))
    assert line.startswith(
        "For the new classes use what is saved: classify answers with the prompt (60.0 %). The tuned"
    )
    assert "the head" not in line


def test_nothing_to_choose_between() -> None:
    assert advice(result(zero_shot=0.6)) == {}


def test_one_sentence_and_what_to_label_next() -> None:
    found = result("base", zero_shot=0.5, tuned=0.9)
    group = ClassGroup("base", ["sea_animal", "dog"], [], np.arange(100), np.repeat([0, 1], [60, 40]))
    for name, wrong in (("zero-shot", 50), ("tuned", 10)):
        group.answers[name, 1] = np.where(np.arange(100) < wrong, 1, group.labels)
    found.confusions, found.labelled, found.shots = {"base": group.confusions()}, {"sea_animal": 40}, 16
    assert headlines(found) == {
        "base": "Use what is saved, the prompt: right on 90.0 % of 100 base pictures (95 % interval 82.6 to 94.5);"
        " label more sea animal next."
    }
    assert next_labels(found) == {
        "base": "Label more of these next: sea animal (50 of 60 right; 10 times taken for dog; 40 labelled)."
        " Of sea animal there are more than the 16 that were learned from: try --shots all first."
    }


def test_the_sentence_where_nothing_was_tuned() -> None:
    found = result(zero_shot=1.0)
    group = ClassGroup("", ["a", "b"], [], np.arange(100), np.zeros(100, dtype=int))
    group.answers["zero-shot", None] = group.labels
    found.confusions = {"": group.confusions()}
    (line,) = headlines(found).values()
    assert (
        line
        == "Nothing was tuned; zero-shot answers: right on 100.0 % of 100 test pictures (95 % interval 96.3 to 100.0)."
    )
    assert next_labels(found) == {}

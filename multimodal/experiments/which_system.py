"""Which system to use, from an evaluation: paired tests of the accuracy by pictures, and what follows, in words.

Test pictures say how good the choice is; they never make it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from multimodal.data.templates import spoken
from multimodal.evaluation.confusion import interval, listed
from multimodal.experiments.systems import ADAPTED
from retrieval_prompts.evaluation.significance import ALPHA, Comparison, compare
from retrieval_prompts.evaluation.words import paired_sentence, points

if TYPE_CHECKING:
    from multimodal.experiments.results import ClassResult
    from multimodal.experiments.systems import ClassGroup

PAIRS = (
    ("tuned", "zero-shot"),
    ("tuned", "linear-probe"),
    ("with-head", "tuned"),
    ("with-head", "zero-shot"),
    ("with-head", "linear-probe"),
    *((saved, adapted) for adapted in ADAPTED for saved in ("tuned", "with-head")),
)  # system, baseline
CALLED = {
    "tuned": "the tuned prompt",
    "with-head": "the head",
    "linear-probe": "the linear probe",
    "zero-shot": "zero-shot",
    "clip-lora": "CLIP-LoRA",
    "zero-shot-ensemble": "zero-shot with all templates",
    "2sfs": "2SFS",
}
USE = {
    "tuned": "the prompt alone: tune with --head none",
    "with-head": "what is saved: classify answers with the head",
    "linear-probe": "the linear probe: tune with --head probe saves one",
    "zero-shot": "zero-shot: classify --strength 0",
}
SAVED = "what is saved: classify answers with the prompt"


def comparisons(groups: Sequence[ClassGroup]) -> dict[str, dict[str, Comparison]]:
    """Part -> "SYSTEM_vs_BASELINE" -> the test of the accuracy, by pictures; over several seeds of their means."""
    found: dict[str, dict[str, Comparison]] = {}
    for group in groups:
        names = {name for name, _ in group.right}
        means = {
            name: np.mean([right for (own, _), right in group.right.items() if own == name], axis=0) for name in names
        }
        values = {
            name: dict(zip(map(str, range(len(mean))), mean.tolist(), strict=True)) for name, mean in means.items()
        }
        found[group.name] = {
            f"{system}_vs_{baseline}": compare(values[baseline], values[system], "accuracy")
            for system, baseline in PAIRS
            if system in values and baseline in values and len(group.labels)
        }
    return found


@dataclass(frozen=True)
class Choice:
    """Which system to use for the classes of a part, and what says so.

    Args:
        part: "", "base" or "new".
        use, saved: of `systems`; what to use, and what the prompt folder answers with.
        against: what `use` is compared with.
        test: of the two; None where none was made.
        scores: system -> accuracy.
    """

    part: str
    use: str
    saved: str
    against: str
    test: Comparison | None
    scores: Mapping[str, float]

    @property
    def called(self) -> str:
        """What to use, as a sentence begins."""
        if self.use == self.saved:
            return f"Use what is saved, {'the head' if self.use == 'with-head' else 'the prompt'}"
        return f"Use {USE[self.use]}"


def choices(result: ClassResult) -> dict[str, Choice]:
    """Part -> the system of the highest accuracy, but no other than what is saved where no test tells them apart; none
    where there is nothing to choose between."""
    found = {}
    for part, tests in result.tests.items():
        metric = part or "accuracy"
        scores = {name: values[metric] for name, values in result.systems.items() if values.get(metric) is not None}
        if len(scores) > 1 and tests:
            found[part] = _choice(part, scores, tests)
    return found


def argued(result: ClassResult) -> dict[str, list[str]]:
    """Part -> which system to use for its classes, how sure that is, and tuned against the probe: sentences."""
    return {part: _sentences(choice, result.tests[part]) for part, choice in choices(result).items()}


def advice(result: ClassResult) -> dict[str, str]:
    """Part -> what `argued` says, on a line."""
    return {part: " ".join(sentences) for part, sentences in argued(result).items()}


def looked_at(result: ClassResult) -> dict[str, str]:
    """Part -> the system whose answers are looked at class by class: the one to use, or else the most accurate."""
    chosen = choices(result)
    found = {}
    for part in result.confusions:
        scores = {name: values.get(part or "accuracy") for name, values in result.systems.items()}
        known = {name: score for name, score in scores.items() if score is not None}
        if known:
            best = result.preferred or max(known, key=known.__getitem__)
            found[part] = chosen[part].use if part in chosen else best
    return found


def next_labels(result: ClassResult) -> dict[str, str]:
    """Part -> what to label next, in a sentence or two; see `Confusion.next_labels`."""
    found = {}
    for part, system in looked_at(result).items():
        own = result.confusions[part].get(system)
        if own is not None and (line := own.next_labels(result.labelled, result.shots)):
            found[part] = line
    return found


def headlines(result: ClassResult) -> dict[str, str]:
    """Part -> one sentence: which system, how sure, what to label next."""
    chosen, found = choices(result), {}
    for part, system in looked_at(result).items():
        own = result.confusions[part].get(system)
        score = result.systems[system][part or "accuracy"]
        if own is None or score is None:
            continue
        said = f"Nothing was tuned; {CALLED.get(system, system)} answers"
        if part in chosen:
            said = chosen[part].called
        elif result.preferred:
            said = f"Held-out shots take {system}"
        low, high = interval(round(score * len(own.right)), len(own.right))
        line = (
            f"{said}: right on {points(score)} % of {len(own.right):,} {part or 'test'} pictures (95 % interval"
            f" {points(low)} to {points(high)})"
        )
        hardest = [spoken(own.classes[at]) for at in own.hardest()]
        found[part] = f"{line}; label more {listed(hardest)} next." if hardest else f"{line}."
    return found


def _choice(part: str, everything: Mapping[str, float], tests: Mapping[str, Comparison]) -> Choice:
    scores = {name: score for name, score in everything.items() if name not in ADAPTED}  # not saved
    if part == "new":  # of which the head knows nothing
        scores = {name: score for name, score in scores.items() if name != "with-head"}
    saved = "with-head" if "with-head" in scores else "tuned"
    top = max(scores, key=lambda name: (scores[name], name == saved))
    test = None if top == saved else _test(tests, top, saved)
    if test is not None and test.p_value < ALPHA:
        return Choice(part, top, saved, saved, test, everything)
    rivals = [name for name in ("linear-probe", "tuned", "zero-shot") if name != saved and _test(tests, saved, name)]
    against = max(rivals, key=lambda name: scores[name], default="zero-shot")
    return Choice(part, saved, saved, against, _test(tests, saved, against), everything)


def _sentences(choice: Choice, tests: Mapping[str, Comparison]) -> list[str]:
    part, use, against, scores = choice.part, choice.use, choice.against, choice.scores
    classes = f"the {part} classes" if part else "these classes"
    line = f"For {classes} use {SAVED if use == choice.saved == 'tuned' else USE[use]}"
    lines = [line]
    if choice.test is not None:
        lines = [f"{line} ({points(scores[use])} %).", _said(use, against, choice.test, scores)]
    probe = _test(tests, "tuned", "linear-probe")
    if probe is not None and {use, against} != {"tuned", "linear-probe"}:
        lines.append(_said("tuned", "linear-probe", probe, scores))
    for name in ADAPTED:
        if (test := _test(tests, choice.saved, name)) is not None:
            lines.append(_said(choice.saved, name, test, scores))
    return lines


def _test(tests: Mapping[str, Comparison], system: str, baseline: str) -> Comparison | None:
    """The test of the system against the baseline, whichever way round it was made."""
    if (found := tests.get(f"{system}_vs_{baseline}")) is not None:
        return found
    turned = tests.get(f"{baseline}_vs_{system}")
    return None if turned is None else turned.turned()


def _said(system: str, baseline: str, test: Comparison, scores: Mapping[str, float]) -> str:
    values = (scores[system], scores[baseline])
    return paired_sentence(CALLED[system], CALLED[baseline], test, values=values).replace("queries", "pictures")

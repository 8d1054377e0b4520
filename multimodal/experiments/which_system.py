"""Which system to use, from an evaluation: paired tests of the accuracy by pictures, and what follows, in words.

Test pictures say how good the choice is; they never make it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

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


def advice(result: ClassResult) -> dict[str, str]:
    """Part -> which system to use for its classes, how sure that is, and tuned against the probe."""
    lines = {}
    for part, tests in result.tests.items():
        metric = part or "accuracy"
        scores = {name: values[metric] for name, values in result.systems.items() if values.get(metric) is not None}
        if len(scores) > 1 and tests:
            lines[part] = _part(part, scores, tests)
    return lines


def _part(part: str, scores: Mapping[str, float], tests: Mapping[str, Comparison]) -> str:
    """The system of the highest accuracy, but no other than what is saved where the test cannot tell them apart."""
    classes = f"the {part} classes" if part else "these classes"
    everything, scores = scores, {name: score for name, score in scores.items() if name not in ADAPTED}  # not saved
    if part == "new":  # of which the head knows nothing
        scores = {name: score for name, score in scores.items() if name != "with-head"}
    saved = "with-head" if "with-head" in scores else "tuned"
    top = max(scores, key=lambda name: (scores[name], name == saved))
    use, against = top, "zero-shot"
    test = None if top == saved else _test(tests, top, saved)
    if top != saved and (test is None or test.p_value >= ALPHA):
        use = saved
    if use == saved:
        rivals = [
            name for name in ("linear-probe", "tuned", "zero-shot") if name != saved and _test(tests, saved, name)
        ]
        against = max(rivals, key=lambda name: scores[name], default="zero-shot")
        test = _test(tests, saved, against)
    else:
        against = saved
    line = f"For {classes} use {SAVED if use == saved == 'tuned' else USE[use]}"
    if test is not None:
        line += f" ({points(scores[use])} %). {_said(use, against, test, scores)}"
    probe = _test(tests, "tuned", "linear-probe")
    if probe is not None and {use, against} != {"tuned", "linear-probe"}:
        line += f" {_said('tuned', 'linear-probe', probe, scores)}"
    for name in ADAPTED:
        if (test := _test(tests, saved, name)) is not None:
            line += f" {_said(saved, name, test, everything)}"
    return line


def _test(tests: Mapping[str, Comparison], system: str, baseline: str) -> Comparison | None:
    """The test of the system against the baseline, whichever way round it was made."""
    if (found := tests.get(f"{system}_vs_{baseline}")) is not None:
        return found
    turned = tests.get(f"{baseline}_vs_{system}")
    return None if turned is None else turned.turned()


def _said(system: str, baseline: str, test: Comparison, scores: Mapping[str, float]) -> str:
    values = (scores[system], scores[baseline])
    return paired_sentence(CALLED[system], CALLED[baseline], test, values=values).replace("queries", "pictures")

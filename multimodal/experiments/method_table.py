"""Several methods of prompt learning on one data set: the same shots, the same pictures, one table.

Held-out shots say which to take; test pictures only say how good each is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multimodal.classifier import PromptClassifier
from multimodal.data.images import ImageData, few_shot
from multimodal.experiments import protocols
from multimodal.experiments.results import ClassResult
from multimodal.prompts.settings import METHODS
from multimodal.towers.clip import Clip
from multimodal.training.settings import on_data
from retrieval_prompts.errors import UserError, few
from retrieval_prompts.experiments.records.stopwatch import Stopwatch

if TYPE_CHECKING:
    from multimodal.training.classes import OnStep

OWN = ("tuned", "with-head")  # systems of each method; others are the same for all


def compare_methods(
    clip: Clip,
    data: ImageData,
    methods: Sequence[str],
    given: Mapping[str, Any],
    how: protocols.EvaluationProtocol,
    *,
    cache: Path | None = None,
    on_step: OnStep | None = None,
    keep_rankings: bool = False,
) -> ClassResult:
    """Tune each method on the same shots, keep none of them, and score all on the same pictures.

    Args:
        methods: names; systems are called after them, and "NAME, head" where a head answers.
        given: other settings, by name; what is not given is each method's default.
        how: a few-shot protocol.

    Raises:
        UserError: for a method that is not there or learns from a teacher, and one that is named twice.
    """
    known = [name for name in METHODS if name != "promptkd"]
    if odd := [repr(name) for name in methods if name not in known]:
        raise UserError(f"--methods: expected some of {', '.join(known)}, got {few(odd)}")
    if len(set(methods)) < len(methods):
        raise UserError(f"--methods names a method twice: {', '.join(methods)}")
    train, watch, facts = data.split("train"), Stopwatch(), list[str]()
    found: dict[str, ClassResult] = {}
    held: dict[str, float] = {}
    for name in methods:
        settings = on_data({**given, "method": name}, data.name)
        shots = train.take(few_shot(train, settings.shots, settings.seed))
        classifier = PromptClassifier(clip, settings)
        labels = [data.classes[label] for label in shots.labels]
        with watch(name):
            classifier.fit(shots.pictures, labels, data.classes, cache=cache, on_step=on_step)
        part = replace(how, systems=OWN) if found else how  # what is the same for all is scored once
        found[name] = protocols.evaluate(part, data, [classifier], cache=cache, keep_rankings=keep_rankings)
        found[name].images_encoded += classifier.training["images_encoded"]
        line = f"{name}: tuned in {watch.seconds[name]:,.0f} s"
        if "held_out" in classifier.training:
            held[name] = classifier.training["held_out"]["right"]
            line += f", {100 * held[name]:.1f} % of the held-out shots right"
        facts.append(f"{line}; head: {classifier.training.get('head', 'none')}")
    result = _together(found)
    result.seconds = {**result.seconds, **watch.seconds}
    if held:
        best = max(held, key=held.__getitem__)
        result.preferred = f"{best}, head" if f"{best}, head" in result.systems else best
        facts.append(
            f"by held-out shots, not by the pictures of the table, take {best}: multimodal-prompts tune --method {best}"
        )
    result.facts = facts
    return result


def _together(found: Mapping[str, ClassResult]) -> ClassResult:
    """One result of all: the systems of each method under its name, the others once."""

    def called(system: str, method: str) -> str:
        return {"tuned": method, "with-head": f"{method}, head"}.get(system, system)

    def merged(of: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        shared = {name: value for name, value in next(iter(of.values())).items() if name not in OWN}
        own = {
            called(name, method): value for method, each in of.items() for name, value in each.items() if name in OWN
        }
        return shared | own

    first = next(iter(found.values()))
    rankings = [
        replace(each, systems=merged({method: result.rankings[at].systems for method, result in found.items()}))
        for at, each in enumerate(first.rankings)
    ]
    return replace(
        first,
        protocol="methods",
        systems=merged({method: result.systems for method, result in found.items()}),
        tests={},
        rankings=rankings,
        images_encoded=sum(result.images_encoded for result in found.values()),
        confusions={"": merged({method: result.confusions[""] for method, result in found.items()})},
        settings={
            **first.settings,
            "prompts": {method: result.settings["prompts"] for method, result in found.items()},
        },
    )

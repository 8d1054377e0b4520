"""How few-shot classifiers are scored: zero-shot, tuned prompts and a linear probe on the same pictures.

Test pictures are scored, never learned from. Prints nothing.
"""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from multimodal.data.images import ImageData, Split, halves, same_name
from multimodal.data.templates import DEFAULT, template_for
from multimodal.evaluation.metrics import harmonic_mean
from multimodal.experiments.results import ClassResult
from multimodal.experiments.systems import ADAPTED, ClassGroup, Classifier, Scorer, Scores, order_of
from multimodal.experiments.which_system import comparisons
from retrieval_prompts.errors import DataWarning, UserError, few
from retrieval_prompts.evaluation.classification.scores import BINS

if TYPE_CHECKING:
    from rich.table import Table
    from torch import Tensor

    from multimodal.towers.clip import Clip

PROTOCOLS = ("few-shot", "base-to-new", "cross-dataset", "domain")
SYSTEMS = ("zero-shot", "zero-shot-ensemble", "tuned", "linear-probe", "with-head")
BASELINES = tuple(ADAPTED)  # scored where they are asked for: minutes
COLUMNS = ("accuracy", "mean_per_class", "ece", "base", "new", "harmonic_mean", "ece_base", "ece_new")  # of a table


@dataclass(frozen=True)
class EvaluationProtocol:
    """What is scored, and within which classes.

    Args:
        name: one of
            - "few-shot": all classes of the data, which are those that the prompts were trained on;
            - "base-to-new": base are the classes that the prompts were trained on, new the others of the data. Each
              is scored within itself (Zhou et al. 2022, CoCoOp, section 4.1) and summed up by the harmonic mean of
              the two accuracies. A linear probe has no answer for new classes: None;
            - "cross-dataset": prompts trained on another data set's classes;
            - "domain": prompts trained on the same classes in other pictures; the linear probe learns from `source`.
        source: the data that the prompts were trained on, for "domain".
        systems: those of SYSTEMS and BASELINES that are scored, where the protocol has them.
        split: scored; the linear probe learns from the few shots of train that its seed's prompts were trained on.
        template: of zero-shot; None: that of the prompts if they have one of their own, else the data set's published.
        steps: of BASELINES, by their names; without, as published: 500 a shot of clip-lora, 300 of 2sfs.

    Raises:
        UserError: for a name or a system that there is not.
    """

    name: str = "few-shot"
    source: ImageData | None = None
    systems: Sequence[str] = SYSTEMS
    split: str = "test"
    template: str | None = None
    steps: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.name not in PROTOCOLS:
            raise UserError(f"there is no protocol {self.name!r}; the protocols are {', '.join(PROTOCOLS)}")
        if self.source is not None and self.name != "domain":
            raise UserError(f"--source is used with --protocol domain, not {self.name}")
        if unknown := set(self.systems) - {*SYSTEMS, *BASELINES}:
            there = ", ".join((*SYSTEMS, *BASELINES))
            raise UserError(f"there is no system {few(sorted(unknown))}; the systems are {there}")

    def trained(self, data: ImageData) -> ImageData | None:
        """The data whose train split the linear probe learns from."""
        return {"domain": self.source, "cross-dataset": None}.get(self.name, data)


def evaluate(
    protocol: EvaluationProtocol | str,
    data: ImageData,
    classifiers: Sequence[Classifier] = (),
    *,
    clip: Clip | None = None,
    cache: Path | None = None,
    keep_rankings: bool = False,
) -> ClassResult:
    """Score systems on one data set.

    Args:
        protocol: or its name, with all else as by default.
        classifiers: tuned prompts that differ in their seed alone; none: zero-shot alone.
        clip: needed where there are no classifiers.
        cache: the folder of image features; None: the user's cache.
        keep_rankings: the result holds what the systems ranked, one entry a part: which classes each picture looks
            like most. Of several classifiers the systems are called "tuned-SEED" and "linear-probe-SEED".

    Raises:
        UserError: for prompts that do not belong together or to the protocol, and data without the split.
    """
    how = EvaluationProtocol(protocol) if isinstance(protocol, str) else protocol
    first = _same_but_seed(classifiers)
    model = first.clip if first is not None else clip
    if model is None:
        raise UserError("expected prompts or a model to evaluate, got neither")
    template = how.template
    if template is None:
        own = first.settings.template if first is not None else DEFAULT
        template = own if own != DEFAULT else template_for(data.name)
    scorer = Scorer(model, template, cache, keep_rankings)
    for name in BASELINES:
        if name in how.systems and (first is None or how.trained(data) is None):
            learns = f"{name} learns from the images that prompts were tuned on"
            raise UserError(f"{learns}: give such prompts, and no others")
    test, features = scorer.read(data.split(how.split), data.classes)
    groups = _groups(how, data, test, first)
    results = _score(how, scorer, groups, classifiers, how.trained(data), features)
    return ClassResult(
        data.name,
        model.title,
        model.pretrained,
        how.name,
        systems={name: results[name] for name in (*SYSTEMS, *BASELINES) if name in results},
        images_encoded=scorer.encoded,
        seconds=scorer.watch.seconds,
        settings={
            "split": how.split,
            "images": len(test),
            "images_skipped": len(scorer.skipped),
            "classes": [len(group.classes) for group in groups],
            "template": template,
            "ece_bins": BINS,
            "trained_on": None if first is None else first.training.get("dataset"),
            "seeds": [classifier.settings.seed for classifier in classifiers],
            "prompts": None if first is None else _without_seed(first),
        },
        tests=comparisons(groups),
        confusions={group.name: group.confusions() for group in groups},
        labelled={} if first is None else _labelled(how.trained(data), data.classes),
        shots=None if first is None else first.settings.shots,
        rankings=[group.rankings(several=len(classifiers) > 1) for group in groups] if keep_rankings else (),
    )


def _labelled(trained: ImageData | None, classes: Sequence[str]) -> dict[str, int]:
    """Class -> the pictures that there are to learn from; called as in `classes`."""
    if trained is None:
        return {}
    split, names = trained.split("train"), {same_name(name): name for name in classes}
    counts = np.bincount(split.labels, minlength=len(trained.classes))
    known = zip(map(same_name, trained.classes), counts.tolist(), strict=True)
    return {names[name]: count for name, count in known if name in names}


def _score(
    how: EvaluationProtocol,
    scorer: Scorer,
    groups: Sequence[ClassGroup],
    classifiers: Sequence[Classifier],
    trained: ImageData | None,
    features: Tensor,
) -> dict[str, dict[str, Any]]:
    """System -> its scores, over seeds where it depends on one."""

    def seeds(score: Callable[[Classifier], list[Scores | None]]) -> dict[str, Any]:
        return over_seeds({str(each.settings.seed): _summary(score(each)) for each in classifiers})

    results: dict[str, Any] = {}
    for name in ("zero-shot", "zero-shot-ensemble"):
        if name in how.systems:
            results[name] = _summary([scorer.zero_shot(group, name, features) for group in groups])
    if "tuned" in how.systems and classifiers:
        results["tuned"] = seeds(lambda each: [scorer.tuned(each, group, features) for group in groups])
    if "linear-probe" in how.systems and classifiers and trained is not None:
        results["linear-probe"] = seeds(lambda each: scorer.probe(each, trained, groups, features))
    for name in BASELINES:
        if name in how.systems and trained is not None:
            steps = how.steps.get(name)
            results[name] = seeds(partial(scorer.adapted, name, trained=trained, groups=groups, steps=steps))
    heads = [each.answer for each in classifiers if each.answer is not None]
    if "with-head" in how.systems and any(head.knows(group.classes) for head in heads for group in groups):
        results["with-head"] = seeds(
            lambda each: [scorer.tuned(each, group, features, "with-head") for group in groups]
        )
    return results


def over_seeds(found: Mapping[str, Scores]) -> dict[str, Any]:
    """Seed -> scores, as {metric: mean, ..., "seeds", "std", "per_seed"}."""
    scores = list(found.values())
    std = _each_metric(scores, statistics.stdev) if len(scores) > 1 else None
    return {**mean_scores(scores), "seeds": len(scores), "std": std, "per_seed": dict(found)}


def mean_scores(found: Sequence[Scores]) -> Scores:
    """The mean of each metric, over seeds or data sets; the harmonic mean is that of the mean accuracies."""
    mean = _each_metric(found, statistics.fmean)
    base, new = mean.get("base"), mean.get("new")
    return mean if base is None or new is None else {**mean, "harmonic_mean": harmonic_mean(base, new)}


def table(result: ClassResult) -> Table:
    """A result as a table to print: percentages with one decimal, "±" the deviation over seeds, a row a system.

    Of base-to-new the means per class are left to the result.
    """
    from retrieval_prompts.evaluation.tables import Cell, Mean, rich_table

    metrics = [name for name in COLUMNS if name in next(iter(result.systems.values()), {})]
    rows: list[list[Cell]] = []
    for name, values in result.systems.items():
        row: list[Cell] = [name]
        for metric in metrics:
            value, deviation = values[metric], (values.get("std") or {}).get(metric)
            if value is not None:
                value = 100 * value if deviation is None else Mean(100 * value, 100 * deviation)
            row.append(value)
        rows.append(row)
    header = ["system", *(metric.replace("_", " ") for metric in metrics)]
    return rich_table(rows, header, title=f"{result.dataset}, {result.protocol}")


def _groups(how: EvaluationProtocol, data: ImageData, test: Split, first: Classifier | None) -> list[ClassGroup]:
    """The classes within which the pictures of `test` are told apart: all of them, or base and new."""
    numbers = _numbers(how.name, data, first)
    names = ("base", "new") if len(numbers) > 1 else ("",)
    groups = [ClassGroup.of(name, test, group) for name, group in zip(names, numbers, strict=True)]
    for group in groups:
        if not len(group.rows):
            raise UserError(f"{how.split} has no picture of the {group.name} classes of {data.name}".replace("  ", " "))
    return groups


def _numbers(protocol: str, data: ImageData, first: Classifier | None) -> list[np.ndarray]:
    """The numbers of the classes of each group."""
    everything = np.arange(len(data.classes))
    if protocol == "base-to-new":
        names = halves(data.classes)[0] if first is None else first.classes
        base = set(order_of(data.classes, names) or ())
        new = [number for number in everything if number not in base]
        if not base or len(base) < 2 or len(new) < 2:
            raise UserError(
                f"base-to-new needs prompts tuned on a part of the classes of {data.name}, with two of its"
                f" {len(everything)} classes or more on either side; got {len(names)} that they were tuned on"
            )
        return [np.array(sorted(base)), np.array(new)]
    if first is not None and protocol == "cross-dataset":
        if order_of(first.classes, data.classes) is not None:
            message = f"{data.name} has the classes that the prompts were tuned on; this is not a cross-dataset test"
            warnings.warn(message, DataWarning, stacklevel=5)
    elif first is not None:
        ours, theirs = ({same_name(name): name for name in names} for names in (data.classes, first.classes))
        if odd := [*(ours[name] for name in ours.keys() - theirs), *(theirs[name] for name in theirs.keys() - ours)]:
            raise UserError(
                f"{protocol} needs prompts tuned on the classes of {data.name}: {len(first.classes)} and {len(ours)}"
                f" classes differ in {few(sorted(odd))}; see --protocol base-to-new and cross-dataset"
            )
    return [everything]


def _each_metric(found: Sequence[Scores], function: Callable[[list[float]], float]) -> Scores:
    columns = {metric: [scores[metric] for scores in found] for metric in found[0]}
    return {
        metric: None if None in column else function([value for value in column if value is not None])
        for metric, column in columns.items()
    }


def _summary(parts: Sequence[Scores | None]) -> Scores:
    """Scores on all classes as they are; of base and new together with their harmonic mean."""
    if len(parts) == 1 and parts[0] is not None:
        return parts[0]
    base, new = (part or dict.fromkeys(("accuracy", "mean_per_class", "ece")) for part in parts)
    first, second = base["accuracy"], new["accuracy"]
    return {
        "base": first,
        "new": second,
        "harmonic_mean": None if first is None or second is None else harmonic_mean(first, second),
        "mean_per_class_base": base["mean_per_class"],
        "mean_per_class_new": new["mean_per_class"],
        "ece_base": base["ece"],
        "ece_new": new["ece"],
    }


def _same_but_seed(classifiers: Sequence[Classifier]) -> Classifier | None:
    """The first, if all are the same but for their seed. Raises UserError."""
    seeds = [classifier.settings.seed for classifier in classifiers]
    if len(set(seeds)) < len(seeds):
        raise UserError(f"expected prompts of different seeds, got the seeds {', '.join(map(str, seeds))}")
    for other in classifiers[1:]:
        first = classifiers[0]
        if (first.classes, first.clip.fingerprint) != (other.classes, other.clip.fingerprint):
            raise UserError("prompts that are averaged over seeds must be of the same model and the same classes")
        if odd := [name for name, value in _without_seed(first).items() if _without_seed(other)[name] != value]:
            raise UserError(f"prompts that are averaged over seeds differ in {few(odd)}; evaluate them one by one")
    return classifiers[0] if classifiers else None


def _without_seed(classifier: Classifier) -> dict[str, Any]:
    return {name: value for name, value in asdict(classifier.settings).items() if name != "seed"}

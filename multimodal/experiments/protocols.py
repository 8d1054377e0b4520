"""How few-shot classifiers are scored: zero-shot, tuned prompts and a linear probe on the same pictures, in one schema.

A result is a dict with "dataset", "model", "protocol", "systems", "images_encoded", "seconds" and "settings". A system
holds the mean over seeds of each metric (fractions) and, where it depends on a seed, "seeds" (how many), "std" (the
sample deviation; None of one seed) and "per_seed". Test pictures are scored, never learned from. Prints nothing.
"""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from multimodal.data.images import ImageData, halves, same_name
from multimodal.data.templates import DEFAULT, template_for
from multimodal.evaluation.metrics import BINS, harmonic_mean
from multimodal.evaluation.rankings import Rankings
from multimodal.experiments.systems import Bench, Part, Scores, order_of
from retrieval_prompts.errors import DataWarning, UserError, few

if TYPE_CHECKING:
    from rich.table import Table

    from multimodal.towers.clip import Clip
    from multimodal.training.settings import Settings

PROTOCOLS = ("few-shot", "base-to-new", "cross-dataset", "domain")
SYSTEMS = ("zero-shot", "zero-shot-ensemble", "tuned", "linear-probe")
COLUMNS = ("accuracy", "mean_per_class", "ece", "base", "new", "harmonic_mean", "ece_base", "ece_new")  # of a table


class Classifier(Protocol):
    """What is asked of tuned prompts; `classifier.PromptClassifier` is one."""

    @property
    def clip(self) -> Clip: ...

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes that they were trained on."""
        ...

    @property
    def settings(self) -> Settings:
        """Their `shots` and `seed` say which pictures they were trained on: those of `images.few_shot`."""
        ...

    @property
    def training(self) -> Mapping[str, Any]: ...

    @property
    def prompts_images(self) -> bool:
        """`logits` takes pictures: their features depend on the prompts."""
        ...

    def logits(self, images: Any, classes: Sequence[str] | None = None, *, cache: Path | None = None) -> np.ndarray:
        """Features (n, D) or n pictures -> (n, C), calibrated; None: for the classes trained on, in their order."""
        ...


def evaluate(
    protocol: str,
    data: ImageData,
    classifiers: Sequence[Classifier] = (),
    *,
    clip: Clip | None = None,
    source: ImageData | None = None,
    systems: Sequence[str] = SYSTEMS,
    split: str = "test",
    template: str | None = None,
    cache: Path | None = None,
    rankings: list[Rankings] | None = None,
) -> dict[str, Any]:
    """Score systems on one data set; see the module's docstring for what comes back.

    Args:
        protocol: one of
            - "few-shot": all classes of the data, which are those that the prompts were trained on;
            - "base-to-new": base are the classes that the prompts were trained on, new the others of the data. Each
              is scored within itself (Zhou et al. 2022, CoCoOp, section 4.1) and summed up by the harmonic mean of
              the two accuracies. A linear probe has no answer for new classes: None;
            - "cross-dataset": prompts trained on another data set's classes;
            - "domain": prompts trained on the same classes in other pictures; the linear probe learns from `source`.
        classifiers: tuned prompts that differ in their seed alone; none: zero-shot alone.
        clip: needed where there are no classifiers.
        source: the data that the prompts were trained on, for "domain".
        systems: those of SYSTEMS that are scored, where the protocol has them.
        split: scored; the linear probe learns from the few shots of train that its seed's prompts were trained on.
        template: of zero-shot; None: that of the prompts if they have one of their own, else the data set's published.
        cache: the folder of image features; None: the user's cache.
        rankings: a list that gets what the systems ranked, one entry a part: which classes each picture looks like
            most. Of several classifiers the systems are called "tuned-SEED" and "linear-probe-SEED".

    Raises UserError for prompts that do not belong together or to the protocol, and data without the split.
    """
    if protocol not in PROTOCOLS:
        raise UserError(f"there is no protocol {protocol!r}; the protocols are {', '.join(PROTOCOLS)}")
    if unknown := set(systems) - set(SYSTEMS):
        raise UserError(f"there is no system {few(sorted(unknown))}; the systems are {', '.join(SYSTEMS)}")
    first = _same_but_seed(classifiers)
    model = first.clip if first is not None else clip
    if model is None:
        raise UserError("expected prompts or a model to evaluate, got neither")
    if template is None:
        own = first.settings.template if first is not None else DEFAULT
        template = own if own != DEFAULT else template_for(data.name)
    bench = Bench(model, template, cache, keep=rankings is not None)
    test, features = bench.read(data.split(split), data.classes)
    groups = _parts(protocol, data, first)
    parts = [
        Part.of(name, test, group) for name, group in zip(("base", "new") if groups[1:] else ("",), groups, strict=True)
    ]
    for part in parts:
        if not len(part.rows):
            raise UserError(f"{split} has no picture of the {part.name} classes of {data.name}".replace("  ", " "))
    trained = {"domain": source, "cross-dataset": None}.get(protocol, data)
    seeds = [str(classifier.settings.seed) for classifier in classifiers]

    results: dict[str, Any] = {}
    for name in ("zero-shot", "zero-shot-ensemble"):
        if name in systems:
            results[name] = _summary([bench.zero_shot(part, name, features) for part in parts])
    if "tuned" in systems and classifiers:
        scores = ([bench.tuned(classifier, part, features) for part in parts] for classifier in classifiers)
        results["tuned"] = over_seeds(dict(zip(seeds, map(_summary, scores), strict=True)))
    if "linear-probe" in systems and classifiers and trained is not None:
        scores = (bench.probe(classifier, trained, parts, features) for classifier in classifiers)
        results["linear-probe"] = over_seeds(dict(zip(seeds, map(_summary, scores), strict=True)))
    if rankings is not None:
        rankings += [part.rankings(several=len(classifiers) > 1) for part in parts]
    return {
        "dataset": data.name,
        "model": model.title,
        "pretrained": model.pretrained,
        "protocol": protocol,
        "systems": {name: results[name] for name in SYSTEMS if name in results},
        "images_encoded": bench.encoded,
        "seconds": bench.watch.seconds,
        "settings": {
            "split": split,
            "images": len(test),
            "images_skipped": len(bench.skipped),
            "classes": [len(part.classes) for part in parts],
            "template": template,
            "ece_bins": BINS,
            "trained_on": None if first is None else first.training.get("dataset"),
            "seeds": [classifier.settings.seed for classifier in classifiers],
            "prompts": None if first is None else _without_seed(first),
        },
    }


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


def table(result: Mapping[str, Any]) -> Table:
    """A result as a table to print: percentages with one decimal, "±" the deviation over seeds, a row a system.

    Of base-to-new the means per class are left to the result.
    """
    from retrieval_prompts.evaluation.tables import Cell, Mean, rich_table

    systems = result["systems"]
    metrics = [name for name in COLUMNS if name in next(iter(systems.values()), {})]
    rows: list[list[Cell]] = []
    for name, values in systems.items():
        row: list[Cell] = [name]
        for metric in metrics:
            value, deviation = values[metric], (values.get("std") or {}).get(metric)
            if value is not None:
                value = 100 * value if deviation is None else Mean(100 * value, 100 * deviation)
            row.append(value)
        rows.append(row)
    header = ["system", *(metric.replace("_", " ") for metric in metrics)]
    return rich_table(rows, header, title=f"{result['dataset']}, {result['protocol']}")


def _parts(protocol: str, data: ImageData, first: Classifier | None) -> list[np.ndarray]:
    """The groups of class numbers within which pictures are told apart: all of them, or base and new."""
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
            message = f"{data.name} has the classes that the prompts were tuned on; this is no cross-dataset test"
            warnings.warn(message, DataWarning, stacklevel=4)
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

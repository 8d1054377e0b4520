"""How few-shot classifiers are scored: zero-shot, tuned prompts and a linear probe on the same pictures, in one schema.

A result is a dict with "dataset", "model", "protocol", "systems", "images_encoded", "seconds" and "settings". A system
holds the mean over seeds of each metric (fractions) and, where it depends on a seed, "seeds" (how many), "std" (the
sample deviation; None of one seed) and "per_seed". Test pictures are scored, never learned from. Prints nothing.
"""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from multimodal.images import ImageData, Split, few_shot, halves, same_name
from multimodal.metrics import BINS, classification, harmonic_mean
from multimodal.tables import few
from multimodal.templates import DEFAULT, template_for
from retrieval_prompts.errors import DataWarning, UserError
from retrieval_prompts.experiment import Stopwatch

if TYPE_CHECKING:
    from rich.table import Table

    from multimodal.clip import Clip
    from multimodal.settings import Settings

PROTOCOLS = ("few-shot", "base-to-new", "cross-dataset", "domain")
SYSTEMS = ("zero-shot", "zero-shot-ensemble", "tuned", "linear-probe")
COLUMNS = ("accuracy", "mean_per_class", "ece", "base", "new", "harmonic_mean", "ece_base", "ece_new")  # of a table
Scores = dict[str, float | None]  # metric -> value; None: the system cannot answer


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
    bench = _Bench(model, template, cache)
    test, features = bench.read(data.split(split), data.classes)
    parts = _parts(protocol, data, first)
    for part, name in zip(parts, ("base", "new") if len(parts) > 1 else ("",), strict=True):
        if not np.isin(test.labels, part).any():
            raise UserError(f"{split} has no picture of the {name} classes of {data.name}".replace("  ", " "))
    trained = {"domain": source, "cross-dataset": None}.get(protocol, data)
    seeds = [str(classifier.settings.seed) for classifier in classifiers]

    results: dict[str, Any] = {}
    for name in ("zero-shot", "zero-shot-ensemble"):
        if name in systems:
            results[name] = _summary([bench.zero_shot(part, name, test, features) for part in parts])
    if "tuned" in systems and classifiers:
        scores = ([bench.tuned(classifier, part, test, features) for part in parts] for classifier in classifiers)
        results["tuned"] = over_seeds(dict(zip(seeds, map(_summary, scores), strict=True)))
    if "linear-probe" in systems and classifiers and trained is not None:
        scores = (bench.probe(classifier, trained, parts, test, features) for classifier in classifiers)
        results["linear-probe"] = over_seeds(dict(zip(seeds, map(_summary, scores), strict=True)))
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
            "classes": [len(part) for part in parts],
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
    from rich.table import Table

    systems = result["systems"]
    metrics = [name for name in COLUMNS if name in next(iter(systems.values()), {})]
    shown = Table(title=f"{result['dataset']}, {result['protocol']}", title_justify="left")
    shown.add_column("system", no_wrap=True)
    for metric in metrics:
        shown.add_column(metric.replace("_", " "), justify="right")
    for name, values in systems.items():
        std = values.get("std") or {}
        cells = []
        for metric in metrics:
            value = "-" if values[metric] is None else f"{100 * values[metric]:.1f}"
            cells.append(value + (f"±{100 * std[metric]:.1f}" if std.get(metric) is not None else ""))
        shown.add_row(name, *cells)
    return shown


@dataclass
class _Bench:
    """What the systems of one evaluation share: the model, its features of pictures, and the accounts."""

    clip: Clip
    template: str
    cache: Path | None
    watch: Stopwatch = field(default_factory=Stopwatch)
    encoded: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)

    def read(self, split: Split, classes: Sequence[str]) -> tuple[Split, Tensor]:
        """The pictures that can be read, and their features (n, D) in float32."""
        from multimodal.features import image_features

        with self.watch("encode images"):
            found = image_features(self.clip, split.pictures, cache=self.cache)
        self.encoded += found.encoded
        self.skipped += found.skipped
        kept = replace(split.take(found.kept), classes=tuple(classes))
        return kept, found.take(np.arange(len(kept)), 0)

    def zero_shot(self, part: np.ndarray, system: str, test: Split, features: Tensor) -> Scores:
        from multimodal.contexts import Classes
        from multimodal.settings import Settings

        rows, labels = _within(test, part)
        with self.watch("zero-shot"):
            classes = Classes(self.clip, [test.classes[number] for number in part], Settings(template=self.template))
            text = (classes.frozen if system == "zero-shot" else classes.ensemble).float().cpu()  # (C, D)
            logits = (self.clip.scale * features[rows] @ text.T).numpy()
        return _scores(logits, labels)

    def tuned(self, classifier: Classifier, part: np.ndarray, test: Split, features: Tensor) -> Scores | None:
        names = [test.classes[number] for number in part]
        order = _order(classifier.classes, names)
        if order is None and classifier.settings.class_specific and len(part) < len(test.classes):
            return None  # new classes: a context of a class's own serves no other class
        rows, labels = _within(test, part)
        images: Any = features[rows]
        if classifier.prompts_images:
            images = [test.pictures[row] for row in rows]
            self.encoded += len(rows)
        with self.watch("tuned"):
            logits = classifier.logits(images, names if order is None else None, cache=self.cache)
        return _scores(logits if order is None else logits[:, order], labels)

    def probe(
        self, classifier: Classifier, trained: ImageData, parts: Sequence[np.ndarray], test: Split, features: Tensor
    ) -> list[Scores | None]:
        """Scores on each part; None on those whose classes it has not seen."""
        from multimodal.probe import linear_probe

        split = trained.split("train")
        names = [test.classes[number] for number in parts[0]]
        order = _order(trained.classes, names)
        assert order is not None, "the parts' classes are the data's"
        chosen = split.take(few_shot(split, classifier.settings.shots, classifier.settings.seed))
        rows, labels = _within(chosen, np.array(order))
        shots, shown = self.read(replace(chosen.take(rows), labels=labels), names)
        with self.watch("linear-probe"):
            probe = linear_probe(shown.numpy(), shots.labels, len(names))
            rows, labels = _within(test, parts[0])
            scores = classification(probe.probabilities(features[rows].numpy()), labels)
        return [dict(scores), *(None for _ in parts[1:])]


def _parts(protocol: str, data: ImageData, first: Classifier | None) -> list[np.ndarray]:
    """The groups of class numbers within which pictures are told apart: all of them, or base and new."""
    everything = np.arange(len(data.classes))
    if protocol == "base-to-new":
        names = halves(data.classes)[0] if first is None else first.classes
        base = set(_order(data.classes, names) or ())
        new = [number for number in everything if number not in base]
        if not base or len(base) < 2 or len(new) < 2:
            raise UserError(
                f"base-to-new needs prompts tuned on a part of the classes of {data.name}, with two of its"
                f" {len(everything)} classes or more on either side; got {len(names)} that they were tuned on"
            )
        return [np.array(sorted(base)), np.array(new)]
    if first is not None and protocol == "cross-dataset":
        if _order(first.classes, data.classes) is not None:
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


def _order(classes: Sequence[str], wanted: Sequence[str]) -> list[int] | None:
    """The position in `classes` of each wanted name; None unless all are there. Spelt as `same_name` allows."""
    positions = {same_name(name): position for position, name in enumerate(classes)}
    found = [positions.get(same_name(name)) for name in wanted]
    return None if None in found else [position for position in found if position is not None]


def _within(split: Split, part: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(rows of the split whose class is in `part`, their positions in it)"""
    positions = np.full(max(int(part.max()), int(split.labels.max(initial=0))) + 1, -1)
    positions[part] = np.arange(len(part))
    rows = np.flatnonzero(positions[split.labels] >= 0)
    return rows, positions[split.labels[rows]]


def _each_metric(found: Sequence[Scores], function: Callable[[list[float]], float]) -> Scores:
    columns = {metric: [scores[metric] for scores in found] for metric in found[0]}
    return {
        metric: None if None in column else function([value for value in column if value is not None])
        for metric, column in columns.items()
    }


def _scores(logits: np.ndarray, labels: np.ndarray) -> Scores:
    return dict(classification(torch.from_numpy(logits).softmax(dim=1).numpy(), labels))


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

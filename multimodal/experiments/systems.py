"""The systems of a few-shot evaluation on one set of pictures: what each says of a group of classes, and its scores.

Knows no protocol: which groups there are, and which system answers for them, is decided in `protocols`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from multimodal.data.images import ImageData, Split, few_shot, same_name
from multimodal.evaluation.confusion import Confusion
from multimodal.evaluation.rankings import Best, Entry, Rankings
from retrieval_prompts.data.ids import portable
from retrieval_prompts.evaluation.classification.scores import classification
from retrieval_prompts.experiments.records.stopwatch import Stopwatch

if TYPE_CHECKING:
    from multimodal.data.pictures import Picture
    from multimodal.towers.clip import Clip
    from multimodal.training.settings import Settings

ADAPTED = {"clip-lora": "clip_lora", "2sfs": "two_stages"}  # what changes a copy of the model: name -> file
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
    def answer(self) -> Any:
        """The head that answers for the classes of the training; None: the prompts do."""
        ...

    def without_head(self) -> Classifier: ...

    @property
    def prompts_images(self) -> bool:
        """`logits` takes pictures: their features depend on the prompts."""
        ...

    def logits(self, images: Any, classes: Sequence[str] | None = None, *, cache: Path | None = None) -> np.ndarray:
        """Features (n, D) or n pictures -> (n, C), calibrated; None: for the classes trained on, in their order."""
        ...


@dataclass
class ClassGroup:
    """Classes that pictures are told apart within, and the test pictures of these classes.

    Args:
        name: "base" or "new"; empty for all classes.
        rows, labels: (n,) the pictures' rows in the test split, and their classes' positions in `classes`.
        best: (system, seed or None) -> what it ranked.
        right: (system, seed or None) -> (n,) whether the first class is the right one.
        answers: (system, seed or None) -> (n,) the first class, as a position in `classes`.
    """

    name: str
    classes: list[str]
    pictures: list[Picture]
    rows: np.ndarray
    labels: np.ndarray
    best: dict[tuple[str, int | None], Best] = field(default_factory=dict)
    right: dict[tuple[str, int | None], np.ndarray] = field(default_factory=dict)
    answers: dict[tuple[str, int | None], np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, test: Split, group: np.ndarray) -> ClassGroup:
        rows, labels = within(test, group)
        return cls(name, [test.classes[number] for number in group], test.take(rows).pictures, rows, labels)

    def confusions(self) -> dict[str, Confusion]:
        """System -> which classes it takes for which, of its first seed."""
        found: dict[str, Confusion] = {}
        for (system, _), answers in self.answers.items():
            found.setdefault(system, Confusion(self.classes, self.labels, answers))
        return found

    def rankings(self, several: bool) -> Rankings:
        """A picture asks for classes. `several`: the seeds are part of the systems' names."""
        return Rankings(
            self.name,
            [Entry(portable(picture.name), picture.name, picture) for picture in self.pictures],
            [Entry(portable(name), name) for name in self.classes],
            [[label] for label in self.labels.tolist()],
            {
                f"{name}-{seed}" if several and seed is not None else name: best
                for (name, seed), best in self.best.items()
            },
        )


@dataclass
class Scorer:
    """Scores the systems of one evaluation: the model and the template that they share, and the accounts."""

    clip: Clip
    template: str
    cache: Path | None
    keep: bool
    watch: Stopwatch = field(default_factory=Stopwatch)
    encoded: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)

    def read(self, split: Split, classes: Sequence[str]) -> tuple[Split, Tensor]:
        """The pictures that can be read, and their features (n, D) in float32."""
        from multimodal.vectors.features import image_features

        with self.watch("encode images"):
            found = image_features(self.clip, split.pictures, cache=self.cache)
        self.encoded += found.encoded
        self.skipped += found.skipped
        kept = replace(split.take(found.kept), classes=tuple(classes))
        return kept, found.take(np.arange(len(kept)), 0)

    def zero_shot(self, group: ClassGroup, system: str, features: Tensor) -> Scores:
        from multimodal.prompts.contexts import Classes
        from multimodal.training.settings import Settings

        with self.watch("zero-shot"):
            classes = Classes(self.clip, group.classes, Settings(template=self.template))
            text = (classes.frozen if system == "zero-shot" else classes.ensemble).float().cpu()  # (C, D)
            logits = (self.clip.scale * features[group.rows] @ text.T).numpy()
        return self.scores(group, system, None, logits)

    def tuned(
        self, classifier: Classifier, group: ClassGroup, features: Tensor, system: str = "tuned"
    ) -> Scores | None:
        """The prompts alone, or, as "with-head", the head for the classes that it knows."""
        classifier = classifier.without_head() if system == "tuned" else classifier
        order = order_of(classifier.classes, group.classes)
        if order is None and classifier.settings.class_specific and group.name:
            return None  # new classes: a context of a class's own serves no other class
        images: Any = features[group.rows]
        if classifier.prompts_images:
            images = group.pictures
            answer = classifier.answer
            self.encoded += 0 if answer is not None and answer.knows_all(group.classes) else len(group.rows)
        with self.watch(system):
            logits = classifier.logits(images, group.classes if order is None else None, cache=self.cache)
        return self.scores(group, system, classifier.settings.seed, logits if order is None else logits[:, order])

    def probe(
        self, classifier: Classifier, trained: ImageData, groups: Sequence[ClassGroup], features: Tensor
    ) -> list[Scores | None]:
        """Scores on each group; None on those whose classes it has not seen."""
        from retrieval_prompts.evaluation.classification.linear_probe import linear_probe

        seen = groups[0]
        shots, shown = self.shots(classifier, trained, seen)
        with self.watch("linear-probe"):
            probe = linear_probe(shown.numpy(), shots.labels, len(seen.classes))
            probabilities = probe.probabilities(features[seen.rows].numpy())
        self.rank(seen, "linear-probe", classifier.settings.seed, probabilities)
        return [dict(classification(probabilities, seen.labels)), *(None for _ in groups[1:])]

    def adapted(
        self, name: str, classifier: Classifier, trained: ImageData, groups: Sequence[ClassGroup], steps: int | None
    ) -> list[Scores | None]:
        """Of a copy of the model that is adapted to the shots of the first group's classes; `name`: of ADAPTED."""
        from multimodal.experiments.adapting import in_template

        module = importlib.import_module(f"multimodal.experiments.{ADAPTED[name]}")
        shots, _ = self.shots(classifier, trained, groups[0])
        texts = [in_template(self.template, group.classes) for group in groups]
        seed, found = classifier.settings.seed, []
        with self.watch(name):
            made = module.fit(self.clip, shots.pictures, shots.labels, texts[0], seed=seed, steps=steps)
            for group, own in zip(groups, texts, strict=True):
                found.append(module.logits(made, group.pictures, own))
                self.encoded += len(group.pictures)
        return [self.scores(group, name, seed, logits) for group, logits in zip(groups, found, strict=True)]

    def shots(self, classifier: Classifier, trained: ImageData, seen: ClassGroup) -> tuple[Split, Tensor]:
        """The pictures of a group's classes that prompts were trained on, labelled as there, and their features."""
        split = trained.split("train")
        order = order_of(trained.classes, seen.classes)
        assert order is not None, "the groups' classes are the data's"
        chosen = split.take(few_shot(split, classifier.settings.shots, classifier.settings.seed))
        rows, labels = within(chosen, np.array(order))
        return self.read(replace(chosen.take(rows), labels=labels), seen.classes)

    def scores(self, group: ClassGroup, system: str, seed: int | None, logits: np.ndarray) -> Scores:
        self.rank(group, system, seed, logits)
        return dict(classification(torch.from_numpy(logits).softmax(dim=1).numpy(), group.labels))

    def rank(self, group: ClassGroup, system: str, seed: int | None, scores: np.ndarray) -> None:
        group.answers[system, seed] = scores.argmax(axis=1)
        group.right[system, seed] = group.answers[system, seed] == group.labels
        if self.keep:
            group.best[system, seed] = Best.of(scores)


def order_of(classes: Sequence[str], wanted: Sequence[str]) -> list[int] | None:
    """The position in `classes` of each wanted name; None unless all are there. Spelt as `same_name` allows."""
    positions = {same_name(name): position for position, name in enumerate(classes)}
    found = [positions.get(same_name(name)) for name in wanted]
    return None if None in found else [position for position in found if position is not None]


def within(split: Split, part: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(rows of the split whose class is in `part`, their positions in it)"""
    positions = np.full(max(int(part.max()), int(split.labels.max(initial=0))) + 1, -1)
    positions[part] = np.arange(len(part))
    rows = np.flatnonzero(positions[split.labels] >= 0)
    return rows, positions[split.labels[rows]]

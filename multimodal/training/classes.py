"""Train the prompts of a frozen CLIP on labelled images: what a step computes, and a classifier's whole training.

A side without a prompt is a constant. Images without visual prompts are features that were computed once; class texts
of a method that prompts images alone are computed once, too.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from multimodal.classifier import PromptClassifier
from multimodal.data.inputs import as_names, as_pictures, label_list, label_numbers, label_values
from multimodal.data.pictures import Picture
from multimodal.heads.answer import Answer
from multimodal.heads.head import Shots
from multimodal.prompts.contexts import Classes, Prompts, logits, projected, still
from multimodal.prompts.methods import Method, build_method
from multimodal.prompts.objectives import Outputs
from multimodal.towers.clip import Clip
from multimodal.towers.image import encode_with_rows
from multimodal.training.distillation import Lessons, right, unlabelled
from multimodal.training.head_choice import Part, check, choose
from multimodal.training.settings import Settings
from multimodal.vectors.image_data import CachedImages
from multimodal.vectors.prediction import predict
from retrieval_prompts.errors import DataWarning, UserError, few
from retrieval_prompts.evaluation.classification.scores import fit_temperature
from retrieval_prompts.training.loop import Step, fit
from retrieval_prompts.training.task import Positions, parts
from retrieval_prompts.training.task import Task as TrainingTask

OnStep = Callable[[Step, int], object]  # called with each record and the number of all steps
FOLDS = 2  # of the training images, to calibrate on


class Images(Protocol):
    """What training reads of its images, by their position from 0."""

    def features(self, positions: Positions, views: Positions) -> Tensor:
        """(b, D) in float32 of unit length, by the frozen image tower."""
        ...

    def pixels(self, positions: Positions, views: Positions) -> Tensor:
        """(b, 3, H, W); asked only by methods that prompt the image tower."""
        ...


@dataclass(frozen=True)
class Batch:
    """Images of one step, and which view of each is read."""

    positions: Positions
    views: Positions


class Average(nn.Module):
    """A prompter, and the Gaussian-weighted mean of its weights after each epoch (PromptSRC, Khattak et al. 2023, 3.2).

    Args:
        mean, deviation: of the Gaussian, in epochs counted from 1.
    """

    def __init__(self, prompter: nn.Module, mean: float, deviation: float) -> None:
        super().__init__()
        self.prompter = prompter
        self.mean, self.deviation = mean, deviation
        for name, value in prompter.state_dict().items():
            self.register_buffer(_buffer(name), torch.zeros_like(value))
        self.register_buffer("total", torch.zeros((), dtype=torch.float64))

    def add(self, epoch: int) -> None:
        """Count in the weights after `epoch` (from 0)."""
        weight = math.exp(-0.5 * ((epoch + 1 - self.mean) / self.deviation) ** 2)
        self.get_buffer("total").add_(weight)
        for name, value in self.prompter.state_dict().items():
            self.get_buffer(_buffer(name)).add_(weight * value)

    def finish(self) -> None:
        """Put the mean into the prompter."""
        total = float(self.get_buffer("total"))
        if total > 0:
            names = self.prompter.state_dict().keys()
            self.prompter.load_state_dict({name: self.get_buffer(_buffer(name)) / total for name in names})


class Task(TrainingTask):
    """One method on one set of labelled images: batches, and the loss of each.

    Args:
        labels: (N,) numbers of classes.
        classes: the classes that are told apart.
        teacher: (positions, views) -> (b, C), what a method with a teacher learns from in place of the labels.
    """

    def __init__(
        self,
        clip: Clip,
        method: Method,
        classes: Classes,
        images: Images,
        labels: Positions,
        settings: Settings,
        teacher: Callable[[Positions, Positions], Tensor] | None = None,
    ) -> None:
        if len(classes) < 2:
            raise UserError(f"expected two classes or more to tell apart, got {len(classes)}")
        if not len(labels):
            raise UserError("there are no images to train on")
        super().__init__(clip.device, settings.precision, settings.seed)
        self.clip, self.method, self.classes, self.images, self.settings = clip, method, classes, images, settings
        self.labels, self.teacher = torch.as_tensor(labels, device=self.device), teacher
        self.parameters = list(method.prompter.parameters())
        self.text: Tensor | None = None  # class texts, where nothing changes them

    def batches(self, epoch: int) -> list[Batch]:
        """The images in an order that the seed and the epoch alone decide, and a view of each."""
        generator = self.generator(epoch)
        order = generator.permutation(len(self.labels))
        settings, size = self.settings, self.settings.batch_size
        if settings.augment == "crops":  # each epoch the next one
            views = np.full(len(order), 1 + epoch % max(1, settings.cached_views - 1))
        else:
            views = generator.integers(settings.views, size=len(order))
        if settings.last_batch == "dropped" and len(order) > size:
            order = order[: len(order) // size * size]
        return [Batch(*both) for both in zip(parts(order, size), parts(views[: len(order)], size), strict=True)]

    def loss(self, batch: Batch) -> Tensor:
        return self.method.objective(self.outputs(batch))

    def outputs(self, batch: Batch) -> Outputs:
        frozen_images = self.images.features(batch.positions, batch.views)
        with self.autocast():
            prompts: Prompts = self.method.prompter(self.classes, frozen_images)
            text = self._text(prompts)
            seen, rows = frozen_images, None
            if prompts.visual:
                pixels = self.images.pixels(batch.positions, batch.views)
                seen, rows = encode_with_rows(self.clip, pixels, prompts.visual, prompts.last)
            seen = projected(seen, prompts.project)
        return Outputs(
            logits=logits(self.clip.scale, seen, text),
            labels=self.labels[torch.as_tensor(batch.positions, device=self.device)],
            text=text,
            images=seen,
            frozen_text=self.classes.frozen,
            ensemble_text=self.classes.ensemble if self.method.ensemble else self.classes.frozen,
            frozen_images=frozen_images,
            scale=self.clip.scale,
            parameters=self.parameters,
            teacher=None if self.teacher is None else self.teacher(batch.positions, batch.views),
            rows=None if rows is None else logits(self.clip.scale, rows, text),
        )

    def _text(self, prompts: Prompts) -> Tensor:
        if not prompts.text_is_frozen:
            return self.classes.features(prompts)
        if self.text is None:
            with torch.no_grad():
                self.text = self.classes.features(prompts)
        return self.text


@dataclass(frozen=True)
class _Some:
    """Some of other images."""

    images: Images
    chosen: Positions

    def features(self, positions: Positions, views: Positions) -> Tensor:
        return self.images.features(self.chosen[positions], views)

    def pixels(self, positions: Positions, views: Positions) -> Tensor:
        return self.images.pixels(self.chosen[positions], views)


def fit_classifier(
    classifier: PromptClassifier,
    pictures: Sequence[Any] | NDArray | Tensor,
    labels: Sequence[Any] | NDArray | None = None,
    classes: Sequence[str] | None = None,
    *,
    cache: Path | None = None,
    checkpoint: Path | None = None,
    on_step: OnStep | None = None,
    parts: Sequence[Part] = (),
) -> None:
    """Train new prompts for a classifier, and fit its temperature and its head; see `PromptClassifier.fit`.

    parts: what `out_of_fold` has found already, with the same settings.
    """
    clip, settings = classifier.clip, classifier.settings
    items = as_pictures(pictures)
    if labels is None and classes is None:
        raise UserError("without labels the classes are not known; give classes=[...]")
    names = as_names(classes) if classes is not None else found_classes(labels if labels is not None else ())
    numbers = None if labels is None else label_numbers(labels, names, len(items))
    known = Classes(clip, names, settings)
    built = build_method(clip, settings, len(names))
    if numbers is None and built.teacher is None:
        raise UserError(f"{settings.method} learns from labels; give one for each image, or use the method promptkd")
    shots = None if numbers is None else _labelled(clip, built, known, items, numbers, settings, cache)
    learns, read, identity = shots, [] if shots is None else [shots.images], []
    if built.teacher is not None:
        if shots is not None:
            given = unlabelled(settings)
            items = cast(CachedImages, shots.images).pictures if given is None else given
        lessons = Lessons(built, known, items, settings, cache)
        nobody = np.zeros(len(lessons), dtype=np.int64)
        learns = Task(clip, built, known, lessons.images, nobody, settings, lessons.said)
        read += [lessons.images, lessons.taught]
        identity = [built.teacher.base["fingerprint"]]
    assert learns is not None and isinstance(learns.images, CachedImages)
    classifier.use(built, known)  # what cannot be trained on was refused above, and leaves earlier prompts as they are
    identity = [clip.fingerprint, names, learns.images.fingerprint(), learns.labels.tolist(), *identity]
    for step, total in train(learns, checkpoint=checkpoint, identity=identity):
        if on_step is not None:
            on_step(step, total)
    encoded = sum(each.features_.encoded for each in read if isinstance(each, CachedImages))
    classifier.training = {"images": len(learns.labels), "images_encoded": encoded}
    if shots is not None and labels is not None:
        classifier.labels = label_values(labels, names)
        if built.teacher is not None:
            images = cast(CachedImages, shots.images)
            classifier.training["right"] = right(images, shots.labels, known, built.teacher, cache)
        _fit_answers(classifier, shots, parts)


def _labelled(
    clip: Clip,
    built: Method,
    known: Classes,
    items: Sequence[Picture],
    numbers: Positions,
    settings: Settings,
    cache: Path | None,
) -> Task:
    """The images that can be read, with their labels. Raises UserError where they are too few."""
    data = CachedImages(clip, items, settings.cached_views, cache)
    numbers = numbers[data.kept]
    if missing := [name for number, name in enumerate(known.names) if number not in set(numbers.tolist())]:
        warnings.warn(
            f"{len(missing)} of {len(known)} classes have no training image: {few(missing)}",
            DataWarning,
            stacklevel=4,
        )
    task = Task(clip, built, known, data, numbers, settings)
    present = torch.unique(task.labels.cpu(), return_inverse=True)[1]
    if int(present.max()) > 0:  # one class alone gets no head
        check(settings.head, present)
    return task


def _fit_answers(classifier: PromptClassifier, task: Task, known: Sequence[Part]) -> None:
    """The temperature and the head of trained prompts, by labelled images."""
    settings = task.settings
    parts = (known or out_of_fold(task)) if settings.calibrate else []
    if parts:
        held = np.concatenate([part.held for part in parts])
        numbers = task.labels.cpu().numpy()
        said = torch.cat([part.logits for part in parts]).numpy()
        classifier.temperature = fit_temperature(said, numbers[held])
        classifier.training["held_out"] = {"right": float((said.argmax(1) == numbers[held]).mean()), "shots": len(held)}
    elif settings.calibrate:
        classifier.training["uncalibrated"] = "a class has one image alone, so none was held out to calibrate by"
    if settings.head != "none":
        classifier.answer, classifier.training["head"] = fit_head(task, parts)


def out_of_fold(task: Task, said: str = "calibrate") -> list[Part]:
    """What prompts say of the training images that they were trained without; empty where a class has a single image.

    The temperature that fits it best calibrates the prompts of all images. Prompts that read no labels are not trained
    anew: they say of all images what they would have said.

    said: what the progress bar calls it.
    """
    clip, known, settings = task.clip, task.classes, task.settings
    numbers = task.labels.cpu().numpy()
    counts = np.unique(numbers, return_counts=True)[1]
    if counts.min() < FOLDS:
        return []
    fold = np.empty(len(numbers), dtype=np.int64)
    fold[np.argsort(numbers, kind="stable")] = np.concatenate([np.arange(count) for count in counts]) % FOLDS
    found = []
    for held in range(FOLDS):
        rest, out = np.flatnonzero(fold != held), np.flatnonzero(fold == held)
        built = task.method
        if built.teacher is None:
            built = build_method(clip, settings, len(known))
            part = Task(clip, built, known, _Some(task.images, rest), numbers[rest], settings)
            name = f"{said}, fold {held + 1} of {FOLDS}"
            for _ in tqdm(train(part), desc=name, unit="step", delay=1, leave=False):
                pass
        answers = predict(clip, built, known, task.images, out, trained=known.names).cpu()
        text = None if built.teacher is not None or settings.head == "none" else own_text(part)
        found.append(Part(rest, out, answers, text))
    return found


@torch.no_grad()
def own_text(task: Task) -> Tensor | None:
    """(C, D), on the CPU: the prompt's class vectors. None where they differ by image or belong to prompted ones."""
    clip = task.clip
    if task.method.prompts_images:
        return None
    prompts = still(task.method.prompter, task.classes, torch.zeros(1, clip.dimension, device=clip.device))
    return None if prompts.per_image else task.classes.features(prompts).cpu()


def fit_head(task: Task, parts: Sequence[Part]) -> tuple[Answer | None, str]:
    """The head for the classes that have images, and why it is that one; see `head_choice.choose`."""
    labels, known = task.labels.cpu(), task.classes
    present, numbers = torch.unique(labels, return_inverse=True)
    if len(present) < 2:
        return None, "none: one class alone has images"
    everything = np.arange(len(labels))
    features = task.images.features(everything, np.zeros_like(everything)).cpu()
    shots = Shots.of(features, numbers, known.frozen.cpu()[present], task.clip.scale)
    kept = [
        Part(part.rest, part.held, part.logits[:, present], None if part.text is None else part.text[present])
        for part in parts
    ]
    text = own_text(task)
    names = [known.names[number] for number in present.tolist()]
    own = None if text is None else text[present]
    return choose(task.settings.head, shots, names, kept, own, published=task.settings.recipe == "paper")


def found_classes(labels: Sequence[Any] | NDArray) -> tuple[str, ...]:
    """The classes of labels, sorted: names by name, whole numbers by number."""
    values = sorted(set(label_list(labels)), key=lambda value: (str(type(value)), value))
    return tuple(map(str, values))


def train(task: Task, *, checkpoint: Path | None = None, identity: Any = None) -> Iterator[tuple[Step, int]]:
    """Train the task's prompter; yields a record a step (see `training.loop.fit`) and the number of all steps.

    Afterwards the prompter holds the last prompts, or their Gaussian average where the method asks for it. There is
    no dev split: few-shot learning has no images to spare, and none of the test's are used.
    """
    settings, prompter = task.settings, task.method.prompter
    loop = settings.loop(advice="it is not saved; try a smaller --lr")
    average: Average | None = None
    if task.method.average is not None:
        mean, deviation = (fraction * settings.epochs for fraction in task.method.average)
        average = Average(prompter, mean, deviation)
    total = settings.epochs * len(task.batches(0))
    for step in fit(
        average or prompter,
        task.batches,
        task.loss,
        None,
        loop,
        epoch_end=average.add if average is not None else None,
        checkpoint=checkpoint,
        identity=[asdict(settings), identity],
    ):
        yield step, total
    if average is not None:
        average.finish()


def _buffer(name: str) -> str:
    return "average_" + name.replace(".", "_")

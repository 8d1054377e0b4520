"""Train the prompts of a frozen CLIP on labelled images: what a step computes. Knows no files and no evaluation.

A side without a prompt is a constant. Images without visual prompts are features that were computed once; class texts
of a method that prompts images alone are computed once, too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from multimodal.prompts.contexts import Classes, Prompts
from multimodal.prompts.methods import Method
from multimodal.prompts.objectives import Outputs
from multimodal.towers.clip import Clip
from multimodal.towers.image import encode_images
from multimodal.training.settings import Settings
from retrieval_prompts.errors import UserError
from retrieval_prompts.training.loop import LoopSettings, Step, fit
from retrieval_prompts.training.task import fast_bfloat16

Positions = NDArray[np.int64]


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


class Task:
    """One method on one set of labelled images: batches, and the loss of each.

    Args:
        labels: (N,) numbers of classes.
        classes: the classes that are told apart.
    """

    def __init__(
        self, clip: Clip, method: Method, classes: Classes, images: Images, labels: Positions, settings: Settings
    ) -> None:
        if len(classes) < 2:
            raise UserError(f"expected two classes or more to tell apart, got {len(classes)}")
        if not len(labels):
            raise UserError("there are no images to train on")
        self.clip, self.method, self.classes, self.images, self.settings = clip, method, classes, images, settings
        self.labels = torch.as_tensor(labels, device=clip.device)
        self.bfloat16 = settings.precision == "bfloat16" or (
            settings.precision == "auto" and fast_bfloat16(clip.device)
        )
        self.parameters = list(method.prompter.parameters())
        self.text: Tensor | None = None  # class texts, where nothing changes them

    def batches(self, epoch: int) -> list[Batch]:
        """The images in an order that the seed and the epoch alone decide, and a view of each."""
        generator = np.random.default_rng([self.settings.seed, epoch])
        order = generator.permutation(len(self.labels))
        views = generator.integers(self.settings.views, size=len(order))
        size = self.settings.batch_size
        return [Batch(order[at : at + size], views[at : at + size]) for at in range(0, len(order), size)]

    def loss(self, batch: Batch) -> Tensor:
        return self.method.objective(self.outputs(batch))

    def outputs(self, batch: Batch) -> Outputs:
        frozen_images = self.images.features(batch.positions, batch.views)
        with torch.autocast(self.clip.device.type, torch.bfloat16, enabled=self.bfloat16):
            prompts: Prompts = self.method.prompter(self.classes, frozen_images)
            text = self._text(prompts)
            seen = frozen_images
            if prompts.visual:
                seen = encode_images(self.clip, self.images.pixels(batch.positions, batch.views), prompts.visual)
        return Outputs(
            logits=logits(self.clip.scale, seen, text),
            labels=self.labels[torch.as_tensor(batch.positions, device=self.labels.device)],
            text=text,
            images=seen,
            frozen_text=self.classes.frozen,
            ensemble_text=self.classes.ensemble if self.method.ensemble else self.classes.frozen,
            frozen_images=frozen_images,
            scale=self.clip.scale,
            parameters=self.parameters,
        )

    def _text(self, prompts: Prompts) -> Tensor:
        if not prompts.text_is_frozen:
            return self.classes.features(prompts)
        if self.text is None:
            with torch.no_grad():
                self.text = self.classes.features(prompts)
        return self.text


def train(task: Task, *, checkpoint: Path | None = None, identity: Any = None) -> Iterator[tuple[Step, int]]:
    """Train the task's prompter; yields a record a step (see `training.fit`) and the number of all steps.

    Afterwards the prompter holds the last prompts, or their Gaussian average where the method asks for it. There is
    no dev split: few-shot learning has no images to spare, and none of the test's are used.
    """
    settings, prompter = task.settings, task.method.prompter
    loop = LoopSettings(
        epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        warmup=settings.warmup,
        weight_decay=settings.weight_decay,
    )
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
        advice="it is not saved; try a smaller --lr",
    ):
        yield step, total
    if average is not None:
        average.finish()


def logits(scale: float, images: Tensor, text: Tensor) -> Tensor:
    """scale * cosines (B, C) of images (B, D) and class texts (C, D), or (B, C, D), each image its own."""
    if text.dim() == 3:
        return scale * (text @ images[:, :, None].to(text.dtype))[:, :, 0].float()
    return scale * images.float() @ text.float().T


def _buffer(name: str) -> str:
    return "average_" + name.replace(".", "_")

"""Train a context on captions: every caption against all pictures, the pictures of a batch against its captions.

Pictures are a constant: their features are computed once, so that all of them are negatives for the price of one
matrix product. With feedback captions are one as well, and pictures are compared with all of them. Knows no labels and
no files but the cache.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.utils.checkpoint
from torch import Tensor, nn

from multimodal.data.captions import WAYS
from multimodal.evaluation.captions import SCORES, Pairs
from multimodal.evaluation.feedback import ranks, read_first
from multimodal.prompts.feedback import Feedback
from multimodal.prompts.folder import Saved
from multimodal.prompts.folder import save as save_prompts
from multimodal.prompts.methods import Method, build_method
from multimodal.prompts.objectives import cross_entropy
from multimodal.vectors.features import image_features
from multimodal.vectors.texts import Texts, context_length, encode_texts, text_prompts, warn_of_cut
from retrieval_prompts.errors import UserError
from retrieval_prompts.training.loop import Step, fit
from retrieval_prompts.training.losses import info_nce
from retrieval_prompts.training.task import Positions, parts
from retrieval_prompts.training.task import Task as TrainingTask

if TYPE_CHECKING:
    from multimodal.data.captions import Captioned
    from multimodal.towers.clip import Clip
    from multimodal.training.settings import Settings
    from multimodal.vectors.features import Features

DEV_SHARE, DEV_MOST = 0.1, 1000  # of the pictures; held out to choose the best epoch by
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)  # the first of equally good ones is taken


@dataclass(frozen=True)
class Tuned:
    """A trained prompter.

    Args:
        strength: how much of it is best on the held-out pictures; 0, the frozen model, if nothing of it helps.
        training: data, dev scores, counts and seconds, as JSON values.
    """

    prompter: nn.Module
    settings: Settings
    strength: float
    training: dict[str, Any]

    def save(self, folder: Path | str, clip: Clip, *, overwrite: bool = False) -> None:
        """Write a prompt folder, the same as that of prompts for classes.

        Raises:
            UserError: when it exists.
        """
        base = {"name": clip.name, "pretrained": clip.pretrained, "fingerprint": clip.fingerprint}
        saved = Saved(
            self.prompter.state_dict(), asdict(self.settings), base, strength=self.strength, training=self.training
        )
        save_prompts(folder, saved, overwrite=overwrite)


class Task(TrainingTask):
    """Pictures with captions to train on.

    Args:
        images: view -> (I, D) of unit length, the pictures' features.
        pairs: the same pictures with their captions.
    """

    def __init__(
        self, clip: Clip, prompter: nn.Module, images: Callable[[int], Tensor], pairs: Pairs, settings: Settings
    ) -> None:
        super().__init__(clip.device, settings.precision, settings.seed)
        self.clip, self.prompter, self.pairs, self.settings = clip, prompter, pairs, settings
        self.images = images
        self.texts = Texts(clip, pairs.captions)
        counts = np.bincount(pairs.owner, minlength=len(pairs.images))
        self.own = np.split(np.arange(len(pairs.owner)), np.cumsum(counts)[:-1])  # (I,) of captions

    def batches(self, epoch: int) -> list[tuple[int, Positions]]:
        """(view, pictures) in an order that the seed and the epoch alone decide; every epoch reads one view."""
        order = self.generator(epoch).permutation(len(self.own))
        return [(epoch % self.settings.views, part) for part in parts(order, self.settings.batch_size)]

    def loss(self, batch: tuple[int, Positions]) -> Tensor:
        """The mean of both directions (CLIP, Radford et al. 2021), with all captions of a picture as positives."""
        view, chosen = batch
        images = self.images(view)
        captions = np.concatenate([self.own[picture] for picture in chosen])  # (n,)
        part = self.texts.take(captions.tolist())
        with self.autocast():
            texts = part.features(text_prompts(self.prompter, part))  # (n, D)
        right = [self.pairs.pictures_of[caption] for caption in captions]
        to_images = against_all(texts, images, right, 1 / self.clip.scale)
        place = {caption: at for at, caption in enumerate(captions.tolist())}
        positive = torch.zeros(len(chosen), len(captions), dtype=torch.bool)
        for row, picture in enumerate(chosen):
            positive[row, [place[at] for at in self.pairs.captions_of[picture] if at in place]] = True
        scores = images[torch.as_tensor(chosen)] @ texts.T
        to_captions = info_nce(scores, positive.to(scores.device), 1 / self.clip.scale)
        return (to_images + to_captions) / 2


class FeedbackTask(Task):
    """Queries of both ways, each against all that it may find; they read what the frozen model finds for them."""

    prompter: Feedback

    def __init__(
        self, clip: Clip, prompter: Feedback, images: Callable[[int], Tensor], pairs: Pairs, settings: Settings
    ) -> None:
        super().__init__(clip, prompter, images, pairs, settings)
        frozen = encode_texts(self.texts)
        asking = zip(WAYS, (pairs.images, frozen), (frozen, pairs.images), strict=True)
        self.read = {way: read_first(queries, searched, prompter.found) for way, queries, searched in asking}
        self.captions = frozen.to(clip.device)  # (T, D)

    def loss(self, batch: tuple[int, Positions]) -> Tensor:
        """The mean of both directions."""
        view, chosen = batch
        images, pairs, temperature = self.images(view), self.pairs, 1 / self.clip.scale
        own = np.concatenate([self.own[picture] for picture in chosen])  # (n,) captions
        with self.autocast():
            words = self.prompter.asked("t2i", self.captions[own], images[self.read["t2i"][own]])
            pictures = self.prompter.asked("i2t", images[chosen], self.captions[self.read["i2t"][chosen]])
        to_images = against_all(words, images, [pairs.pictures_of[caption] for caption in own], temperature)
        right = [pairs.captions_of[picture] for picture in chosen]
        return (to_images + against_all(pictures, self.captions, right, temperature)) / 2


def against_all(texts: Tensor, images: Tensor, right: list[list[int]], temperature: float) -> Tensor:
    """InfoNCE of texts (n, D) against all images (I, D); `right`: the positions in I of each text's positives.

    Rows are compared in chunks that are recomputed in the backward pass, where there are more than SCORES scores.
    """
    step = max(1, SCORES // len(images))
    total = texts.new_zeros(())
    for start in range(0, len(texts), step):
        own = right[start : start + step]
        positive = torch.zeros(len(own), len(images), dtype=torch.bool, device=texts.device)
        for row, columns in enumerate(own):
            positive[row, columns] = True
        run = partial(_compared, images=images, positive=positive, temperature=temperature)
        part = texts[start : start + step]
        chunked = len(texts) > step
        value = torch.utils.checkpoint.checkpoint(run, part, use_reentrant=False) if chunked else run(part)
        total = total + value * len(own)
    return total / len(texts)


def tune_captions(
    clip: Clip,
    data: Captioned,
    settings: Settings,
    *,
    cache: Path | None = None,
    checkpoint: Path | None = None,
    on_step: Callable[[Step, int], object] | None = None,
) -> Tuned:
    """Train the context of `settings` on captioned pictures, a tenth of which is held out to choose
    the epoch and the strength by.

    Args:
        data: the training split.
        settings: a method that trains nothing but the text side's context, coop or deep, or feedback. Its shots are
            not read: all pictures are trained on.
        cache: see `image_features`.
        checkpoint: see `training.loop.fit`.
        on_step: called with each record and the number of all steps.

    Raises:
        UserError: for other methods and positions, and for fewer than four pictures that can be read.
    """
    started = time.perf_counter()
    built, settings = _method(clip, settings)
    features = image_features(clip, data.pictures, views=settings.views, cache=cache)
    kept = np.asarray(features.kept)
    train_part, dev_part = hold_out(len(kept), settings.seed)
    train, dev = (
        Pairs(features.take(part, 0), [data.captions[at] for at in kept[part]]) for part in (train_part, dev_part)
    )
    encoded_at = time.perf_counter()
    dev_texts, prompter = Texts(clip, dev.captions), built.prompter
    views = _views(features, train_part, clip)
    if isinstance(prompter, Feedback):
        task: Task = FeedbackTask(clip, prompter, views, train, settings)
    else:
        task = Task(clip, prompter, views, train, settings)
    length = context_length(prompter, task.texts)
    dev_texts.frozen = encode_texts(dev_texts).to(clip.device)  # once, not at each score
    dev_texts.rows(length)
    warn_of_cut(task.texts, length)

    def score(strength: float = 1.0) -> float:
        return ranks(dev, dev_texts, prompter, strength).mean_reciprocal_rank()

    loop = settings.loop()
    identity = [asdict(settings), clip.fingerprint, train.captions, [data.pictures[at].name for at in kept]]
    total = settings.epochs * len(task.batches(0))
    initial = score()
    for step in fit(built.prompter, task.batches, task.loss, score, loop, checkpoint=checkpoint, identity=identity):
        if on_step is not None:
            on_step(step, total)
    scores = {strength: score(strength) for strength in STRENGTHS}
    strength = max(scores, key=scores.__getitem__)
    training = {
        "data": data.name,
        "split": data.split,
        "images": len(train.images),
        "captions": len(train.captions),
        "captions_cut": len(task.texts.cut(length)),
        "images_encoded": features.encoded,
        "dev": {
            "images": len(dev.images),
            "metric": "mean reciprocal rank, both ways",
            "zero-shot": scores[0.0],
            "initial": initial,
            "full_strength": scores[1.0],
            "tuned": scores[strength],
        },
        "steps": total,
        "seconds": {
            "images": round(encoded_at - started, 3),
            "training": round(time.perf_counter() - encoded_at, 3),
        },
    }
    return Tuned(built.prompter, settings, strength, training)


def hold_out(count: int, seed: int) -> tuple[Positions, Positions]:
    """(train, dev): positions of pictures, ascending.

    Raises:
        UserError: for fewer than four.
    """
    if count < 4:
        raise UserError(f"expected four or more pictures with captions to train on, got {count}")
    order = np.random.default_rng([seed]).permutation(count)
    held_out = min(max(round(DEV_SHARE * count), 2), DEV_MOST)
    return np.sort(order[held_out:]), np.sort(order[:held_out])


def _method(clip: Clip, settings: Settings) -> tuple[Method, Settings]:
    """The settings' method, and the settings for all pictures.

    Raises:
        UserError: where captions do not go with it.
    """
    built = build_method(clip, settings)
    if built.objective is not cross_entropy or built.prompts_images:
        raise UserError(
            f"captions are trained on with a loss of their own, which the method {settings.method} does not go with; "
            "use coop, deep or feedback"
        )
    if settings.position != "end":
        raise UserError(f"a context stands before a caption; leave out --position {settings.position}")
    return built, replace(settings, shots=None)


def _compared(texts: Tensor, images: Tensor, positive: Tensor, temperature: float) -> Tensor:
    return info_nce(texts @ images.T, positive, temperature)


def _views(features: Features, positions: Positions, clip: Clip) -> Callable[[int], Tensor]:
    """view -> features (n, D) on the model's device; the last one read is kept."""
    kept: dict[int, Tensor] = {}

    def view(number: int) -> Tensor:
        if number not in kept:
            kept.clear()
            kept[number] = features.take(positions, number).to(clip.device)
        return kept[number]

    return view

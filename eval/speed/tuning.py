"""Whole few-shot tuning of a context, beside a faithful CoOp loop (Zhou et al. 2022) with the same model and settings.

    ours        image features cached, text tower prefix-shared; timed from its first step to its last, all of it
    published   every step reads, crops and encodes its images anew, and runs all classes through the text tower at its
                full length, as in CoOp's code; `--steps` steps are timed, and the total is their mean times all steps

That the two learn the same is shown apart: from the same start, on the same batches of images as they are, without
random crops, for `--control-epochs`, once with each text tower; the accuracies on test and the difference of the
contexts are in the result.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from eval.speed.text_tower import published
from multimodal.classifier import PromptClassifier
from multimodal.data.images import Split, few_shot, load_images
from multimodal.prompts.contexts import Classes, initial_context, logits
from multimodal.towers.clip import Clip, load_clip
from multimodal.training.settings import Settings
from multimodal.vectors.features import image_features, pixels
from retrieval_prompts.files import check_output, write_json
from retrieval_prompts.training.loop import LoopSettings, learning_rate


def encode_published(classes: Classes, context: Tensor) -> Tensor:
    return F.normalize(published(classes.clip.text, classes.rows, context), dim=-1)


def encode_shared(classes: Classes, context: Tensor) -> Tensor:
    return F.normalize(classes.clip.text.encode(classes.rows, context), dim=-1)


class Loop:
    """CoOp with AdamW, written out: a step takes images' features and labels."""

    def __init__(self, classes: Classes, settings: Settings, steps: int, encode: Callable[[Classes, Tensor], Tensor]):
        self.classes, self.encode, self.steps = classes, encode, steps
        start = initial_context(classes.clip, settings.init, settings.context, settings.seed)
        self.context = start.clone().requires_grad_()
        self.loop = LoopSettings(settings.epochs, settings.learning_rate, settings.warmup, settings.weight_decay)
        self.optimizer = torch.optim.AdamW(
            [self.context], lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self.done = 0

    def step(self, images: Tensor, labels: Tensor) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.done, self.steps, self.loop)
        self.optimizer.zero_grad()
        loss = F.cross_entropy(logits(self.classes.clip.scale, images, self.encode(self.classes, self.context)), labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([self.context], self.loop.clip or math.inf)
        self.optimizer.step()
        self.done += 1
        return float(loss)


def batches(count: int, settings: Settings, epoch: int) -> list[np.ndarray]:
    order = np.random.default_rng([settings.seed, epoch]).permutation(count)
    return [order[at : at + settings.batch_size] for at in range(0, count, settings.batch_size)]


def published_seconds(clip: Clip, classes: Classes, shots: Split, settings: Settings, steps: int) -> list[float]:
    """Seconds of each of `steps` steps after a first one that is not counted: read, crop, encode, step."""
    loop = Loop(classes, settings, steps + 1, encode_published)
    seconds = []
    chosen = [batch for epoch in range(settings.epochs) for batch in batches(len(shots), settings, epoch)]
    for number, batch in enumerate(chosen[: steps + 1]):
        start = time.perf_counter()
        with torch.no_grad():
            seen = clip.encode_images(torch.stack([pixels(clip, shots.pictures[at], 1 + number) for at in batch]))
        loop.step(seen, torch.as_tensor(shots.labels[batch]))
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


def control(
    classes: Classes, shots: Split, features: Tensor, test: tuple[Tensor, np.ndarray], settings: Settings
) -> Any:
    """The same training with either text tower -> accuracies and the relative difference of the contexts."""
    contexts, found = [], {}
    for name, encode in (("published", encode_published), ("shared", encode_shared)):
        loop = Loop(classes, settings, settings.epochs * len(batches(len(shots), settings, 0)), encode)
        for epoch in range(settings.epochs):
            for batch in batches(len(shots), settings, epoch):
                loop.step(features[torch.as_tensor(batch)], torch.as_tensor(shots.labels[batch]))
        with torch.no_grad():
            predicted = (test[0] @ encode_shared(classes, loop.context).T).argmax(dim=1).numpy()
        found[name] = float((predicted == test[1]).mean())
        contexts.append(loop.context.detach())
    difference = float((contexts[0] - contexts[1]).norm() / contexts[0].norm())
    return {"epochs": settings.epochs, "accuracy": found, "context_difference": difference}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="labelled images, as multimodal-prompts tune takes them")
    parser.add_argument("--model", help="a folder or open_clip name with a fused causal text tower")
    parser.add_argument("--pretrained")
    parser.add_argument("--shots", type=int, default=16)
    parser.add_argument("--context", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--steps", type=int, default=20, help="timed steps of the published loop")
    parser.add_argument("--control-epochs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--overwrite", action="store_true")
    arguments = parser.parse_args()
    if arguments.json is not None:
        check_output(arguments.json, overwrite=arguments.overwrite)

    clip = load_clip(arguments.model, arguments.pretrained)
    data = load_images(arguments.data)
    train = data.split("train")
    shots = train.take(few_shot(train, arguments.shots, arguments.seed))
    settings = Settings.of(
        method="coop",
        context=arguments.context,
        shots=arguments.shots,
        epochs=arguments.epochs,
        seed=arguments.seed,
        calibrate=False,
    )
    classes = Classes(clip, data.classes, settings)
    cached = image_features(clip, shots.pictures)
    features = cached.take(np.arange(len(shots)), 0)
    tested = data.split("test")
    seen = image_features(clip, tested.pictures)
    test = (seen.take(np.arange(len(seen)), 0), tested.labels[np.asarray(seen.kept)])
    steps = settings.epochs * len(batches(len(shots), settings, 0))

    ours: dict[str, Any] = {}
    for precision in ("float32", "bfloat16"):
        start = time.perf_counter()
        classifier = PromptClassifier(clip, replace(settings, precision=precision))
        classifier.fit(shots.pictures, [data.classes[label] for label in shots.labels], data.classes)
        seconds = time.perf_counter() - start
        accuracy = float((classifier.logits(test[0]).argmax(axis=1) == test[1]).mean())
        ours[precision] = {"seconds": seconds, "accuracy": accuracy}
        print(f"ours, {precision}: {seconds:.1f} s for {steps:,} steps, accuracy {100 * accuracy:.1f} %", flush=True)
    each = published_seconds(clip, classes, shots, settings, arguments.steps)
    total = statistics.mean(each) * steps
    print(f"published: {statistics.mean(each):.3f} s a step over {len(each)} steps, {total:.0f} s extrapolated")
    same = control(classes, shots, features, test, replace(settings, epochs=arguments.control_epochs))
    print(f"control, {same['epochs']} epochs: accuracy {same['accuracy']}")
    print(f"control: the contexts differ by {same['context_difference']:.1e}")
    for precision, row in ours.items():
        print(f"{precision}: {total / row['seconds']:.1f} times as fast as published")
    if arguments.json is not None:
        write_json(
            arguments.json,
            {
                "dataset": data.name,
                "model": clip.title,
                "classes": len(data.classes),
                "train_images": len(shots),
                "context": settings.context,
                "epochs": settings.epochs,
                "steps": steps,
                "threads": torch.get_num_threads(),
                "torch": torch.__version__,
                "ours": ours,
                "published": {"seconds_per_step": each, "steps_timed": len(each), "seconds_extrapolated": total},
                "control": same,
            },
        )


if __name__ == "__main__":
    main()

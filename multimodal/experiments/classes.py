"""One experiment on labelled images: tune prompts on a few shots, save them, evaluate them, in one result schema."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from multimodal.classifier import PromptClassifier
from multimodal.data import images
from multimodal.data.images import ImageData, few_shot, halves
from multimodal.experiments import protocols
from multimodal.experiments.results import ClassResult
from multimodal.towers.clip import Clip
from multimodal.training.settings import Settings
from retrieval_prompts.errors import UserError
from retrieval_prompts.experiments.records.stopwatch import Stopwatch
from retrieval_prompts.experiments.run import IDENTITY, PromptOutput, StepLog, digest

if TYPE_CHECKING:
    from multimodal.training.classes import OnStep

SUBSETS = ("all", "base", "new")


def tune(
    clip: Clip,
    data: ImageData,
    settings: Settings,
    out: Path | PromptOutput | None = None,
    *,
    subset: str = "all",
    cache: Path | None = None,
    on_step: OnStep | None = None,
    keep_rankings: bool = False,
) -> ClassResult:
    """Tune prompts on the shots of a data set, save them, and evaluate them on its test split.

    Args:
        out: the prompt folder, or a `PromptOutput` where one that exists may be replaced. Training is checkpointed
            beside it, and goes on from there when it was interrupted.
        subset: "all" classes; or the "base" or "new" half of the sorted names, and the evaluation is base-to-new.
        on_step: called with each record and the number of all steps.
        keep_rankings: the result holds what the systems ranked.

    Returns the result of `protocols.evaluate`, with the seconds and settings of the training in it.

    Raises:
        UserError: for data or settings that cannot be trained on; nothing is then written.
    """
    with PromptOutput.of(out) as output:
        return _tune(clip, data, settings, output, subset, cache, on_step, keep_rankings)


def _tune(
    clip: Clip,
    data: ImageData,
    settings: Settings,
    output: PromptOutput,
    subset: str,
    cache: Path | None,
    on_step: OnStep | None,
    keep_rankings: bool,
) -> ClassResult:
    part, test = subset_of(data, subset), data.split("test")
    train = part.split("train")
    shots = train.take(few_shot(train, settings.shots, settings.seed))
    names, labels = [picture.name for picture in shots.pictures], [part.classes[label] for label in shots.labels]
    classifier, log, watch = PromptClassifier(clip, settings), StepLog(on_step), Stopwatch()
    run = digest([asdict(settings), clip.fingerprint, part.classes, names, labels])
    if output.folder is not None and output.made_by(run):
        classifier = PromptClassifier.load(output.folder, clip)
        classifier.training["images_encoded"] = 0
    else:
        with watch("tune"), output.checkpoint(run) as checkpoint:
            classifier.fit(shots.pictures, labels, part.classes, cache=cache, checkpoint=checkpoint, on_step=log)
        about = {"dataset": data.name, "subset": subset, "seed": settings.seed, "shots": settings.shots}
        classifier.training |= about | {"pictures": names, IDENTITY: run}
        output.save(classifier.save)
    protocol = "few-shot" if subset == "all" else "base-to-new"
    result = protocols.evaluate(protocol, data, [classifier], cache=cache, keep_rankings=keep_rankings)
    result.images_encoded += classifier.training["images_encoded"]
    result.seconds = {**watch.seconds, **result.seconds}
    result.settings |= {
        **asdict(settings),
        "subset": subset,
        "train_images": classifier.training["images"],
        "temperature": classifier.temperature,
        "head_taken": None if classifier.answer is None else classifier.answer.name,
        "text_tower": classifier.way(),
    }
    counts = f"{len(part.classes)} classes, {len(shots):,} training images, {len(test):,} test images"
    held_out = " (no test split: held out of each class)" if data.held_out else ""
    encoded = "its images are encoded in every step, no cached feature serves"
    result.facts = [
        f"{data.name}: {counts}{held_out}",
        *([f"{settings.method} prompts the image tower: {encoded}"] if classifier.prompts_images else []),
        f"text tower: {classifier.way()}; temperature {classifier.temperature:.2f}",
        *([f"head: {classifier.training['head']}"] if "head" in classifier.training else []),
    ]
    result.steps = log.steps
    return result


def subset_of(data: ImageData, name: str) -> ImageData:
    """The data with "all" of its classes, or with the "base" or "new" half of them. Raises UserError."""
    if name not in SUBSETS:
        raise UserError(f"--subset must be all, base or new, got {name!r}")
    if name == "all":
        return data
    if len(data.classes) < 4:
        raise UserError(f"{data.name} has {len(data.classes)} classes; base-to-new needs 4 or more")
    return images.subset(data, halves(data.classes)[0 if name == "base" else 1])

"""One experiment on labelled images: tune prompts on a few shots, save them, evaluate them, in one result schema."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from multimodal.classifier import PromptClassifier
from multimodal.data import images
from multimodal.data.images import ImageData, few_shot, halves
from multimodal.experiments import protocols
from multimodal.experiments.results import ClassResult
from multimodal.towers.clip import Clip
from multimodal.training.distillation import unlabelled
from multimodal.training.settings import Settings
from retrieval_prompts.errors import UserError
from retrieval_prompts.experiments.records.stopwatch import Stopwatch
from retrieval_prompts.experiments.run import IDENTITY, PromptOutput, StepLog, digest

if TYPE_CHECKING:
    from multimodal.data.pictures import Picture
    from multimodal.training.classes import OnStep

SUBSETS = ("all", "base", "new")


def tune(
    clip: Clip,
    data: ImageData,
    settings: Settings,
    out: Path | str | PromptOutput | None = None,
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
    others = [] if (given := unlabelled(settings)) is None else [[picture.name for picture in given]]
    run = digest([asdict(settings), clip.fingerprint, part.classes, names, labels, *others])
    if output.folder is not None and output.made_by(run):
        classifier = PromptClassifier.load(output.folder, clip)
        classifier.training["images_encoded"] = 0
    else:
        with watch("tune"), output.checkpoint(run) as checkpoint:
            classifier.fit(shots.pictures, labels, part.classes, cache=cache, checkpoint=checkpoint, on_step=log)
        about = {"dataset": data.name, "subset": subset, "seed": settings.seed, "shots": settings.shots}
        classifier.training |= about | {"pictures": names, IDENTITY: run}
        output.save(classifier.save)
    settings = classifier.settings  # of the method that was taken
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
    learned = f", {classifier.training['images']:,} pictures without labels" if others else ""
    counts = f"{len(part.classes)} classes, {len(shots):,} training images{learned}, {len(test):,} test images"
    held_out = " (no test split: held out of each class)" if data.held_out else ""
    encoded = "its images are encoded in every step, no cached feature serves"
    result.facts = [
        f"{data.name}: {counts}{held_out}",
        *([f"{settings.method} prompts the image tower: {encoded}"] if classifier.prompts_images else []),
        *([f"method {classifier.training['method']}"] if "method" in classifier.training else []),
        *(
            [f"the prompt is not calibrated: {classifier.training['uncalibrated']}"]
            if "uncalibrated" in classifier.training
            else []
        ),
        *([_beside_teacher(classifier.training["right"])] if "right" in classifier.training else []),
        f"text tower: {classifier.way()}; temperature {classifier.temperature:.2f}",
        *([f"head: {classifier.training['head']}"] if "head" in classifier.training else []),
    ]
    result.steps = log.steps
    return result


def _beside_teacher(right: dict[str, float]) -> str:
    teacher, own = right["teacher"], right["zero-shot"]
    said = f"right on the training images: the teacher {100 * teacher:.1f} %, zero-shot {100 * own:.1f} %"
    return said if teacher > own else f"{said}; such a teacher has little to teach, look for a better one"


def distil(
    clip: Clip,
    pictures: Sequence[Picture],
    names: Sequence[str],
    settings: Settings,
    out: Path | str | PromptOutput | None = None,
    *,
    cache: Path | None = None,
    on_step: OnStep | None = None,
) -> ClassResult:
    """Let prompts learn from a teacher on pictures of which no label is known, and save them. Nothing is evaluated, the
    probabilities are as the teacher's, and the prompts answer without a head.

    Args:
        names: of the classes to tell apart.
        out: as for `tune`.

    Raises:
        UserError: for a method without a teacher, and what it cannot be trained on; nothing is then written.
    """
    classifier, log, watch = PromptClassifier(clip, settings), StepLog(on_step), Stopwatch()
    seen = [picture.name for picture in pictures]
    run = digest([asdict(settings), clip.fingerprint, list(names), seen])
    with PromptOutput.of(out) as output:
        if output.folder is not None and output.made_by(run):
            classifier = PromptClassifier.load(output.folder, clip)
            classifier.training["images_encoded"] = 0
        else:
            with watch("tune"), output.checkpoint(run) as checkpoint:
                classifier.fit(pictures, None, names, cache=cache, checkpoint=checkpoint, on_step=log)
            classifier.training |= {"dataset": str(settings.unlabelled), "seed": settings.seed, IDENTITY: run}
            output.save(classifier.save)
    count = classifier.training["images"]
    teacher = classifier.method.teacher
    return ClassResult(
        str(settings.unlabelled),
        clip.title,
        clip.pretrained,
        "unlabelled",
        systems={},
        images_encoded=classifier.training["images_encoded"],
        seconds=watch.seconds,
        settings={**asdict(settings), "train_images": count, "images_skipped": len(pictures) - count},
        facts=[f"{len(names)} classes, {count:,} pictures without labels, teacher {teacher and teacher.base['name']}"],
        steps=log.steps,
    )


def subset_of(data: ImageData, name: str) -> ImageData:
    """The data with "all" of its classes, or with the "base" or "new" half of them. Raises UserError."""
    if name not in SUBSETS:
        raise UserError(f"--subset must be all, base or new, got {name!r}")
    if name == "all":
        return data
    if len(data.classes) < 4:
        raise UserError(f"{data.name} has {len(data.classes)} classes; base-to-new needs 4 or more")
    return images.subset(data, halves(data.classes)[0 if name == "base" else 1])

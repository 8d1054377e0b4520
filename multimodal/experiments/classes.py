"""One experiment on labelled images: tune prompts on a few shots, save them, evaluate them, in one result schema."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from multimodal.classifier import PromptClassifier
from multimodal.data import images
from multimodal.data.images import ImageData, few_shot, halves
from multimodal.data.templates import template_for
from multimodal.evaluation.rankings import Rankings
from multimodal.experiments import protocols
from multimodal.towers.clip import Clip, load_clip
from multimodal.training.settings import Settings
from retrieval_prompts.errors import Diverged, UserError
from retrieval_prompts.experiments.stopwatch import Stopwatch
from retrieval_prompts.files import check_output
from retrieval_prompts.training.loop import Step

SUBSETS = ("all", "base", "new")


def with_template(settings: Settings, data: ImageData) -> Settings:
    """The settings with the data set's published template, where there is one."""
    return replace(settings, template=template_for(data.name))


def tune(
    data: ImageData,
    settings: Settings,
    out: Path | None = None,
    *,
    subset: str = "all",
    model: Clip | str | None = None,
    pretrained: str | None = None,
    device: str | None = None,
    cache: Path | None = None,
    overwrite: bool = False,
    on_step: Callable[[Step, int], object] | None = None,
    say: Callable[[str], object] = lambda line: None,
    rankings: list[Rankings] | None = None,
) -> dict[str, Any]:
    """Tune prompts on the shots of a data set, save them, and evaluate them on its test split.

    Args:
        out: the prompt folder. Training is checkpointed beside it, and goes on from there when it was interrupted.
        subset: "all" classes; or the "base" or "new" half of the sorted names, and the evaluation is base-to-new.
        model: a loaded model, or what `load_clip` takes.
        say: told what people want to know.
        rankings: a list that gets what the systems ranked.

    Returns the result of `protocols.evaluate`, with the seconds and settings of the training in it. Raises UserError
    for data or settings that cannot be trained on; nothing is then written.
    """
    if out is not None:
        check_output(out, overwrite=overwrite, holds="prompt.json")
    if subset not in SUBSETS:
        raise UserError(f"--subset must be all, base or new, got {subset!r}")
    test = data.split("test")
    watch = Stopwatch()
    with watch("load model"):
        clip = model if isinstance(model, Clip) else load_clip(model, pretrained, device=device)
    part = _part(data, subset)
    train = part.split("train")
    shots = train.take(few_shot(train, settings.shots, settings.seed))
    say(
        f"{data.name}: {len(part.classes)} classes, {len(shots):,} training images"
        + f", {len(test):,} test images"
        + (" (no test split: held out of each class)" if data.held_out else "")
    )
    classifier = PromptClassifier(clip, settings)
    checkpoint = out.parent / f"{out.name}.partial" if out is not None else None
    with watch("tune"), fresh_after_divergence(checkpoint):
        classifier.fit(
            shots.pictures,
            [part.classes[label] for label in shots.labels],
            part.classes,
            cache=cache,
            checkpoint=checkpoint,
            on_step=on_step,
        )
    if classifier.prompts_images:
        say(
            f"{settings.method} prompts the image tower: its images are encoded in every step, no cached feature serves"
        )
    say(f"text tower: {classifier.way()}; temperature {classifier.temperature:.2f}")
    classifier.training |= {
        "dataset": data.name,
        "subset": subset,
        "seed": settings.seed,
        "shots": settings.shots,
        "pictures": [picture.name for picture in shots.pictures],
    }
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        classifier.save(out, overwrite=overwrite)
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    protocol = "few-shot" if subset == "all" else "base-to-new"
    result = protocols.evaluate(protocol, data, [classifier], cache=cache, rankings=rankings)
    result["images_encoded"] += classifier.training["images_encoded"]
    result["seconds"] = {**watch.seconds, **result["seconds"]}
    result["settings"] = {
        **result["settings"],
        **asdict(settings),
        "subset": subset,
        "train_images": classifier.training["images"],
        "temperature": classifier.temperature,
        "text_tower": classifier.way(),
    }
    return result


@contextmanager
def fresh_after_divergence(checkpoint: Path | None) -> Iterator[None]:
    """Remove the checkpoint of a training that diverged: with the same settings it would only do so again."""
    try:
        yield
    except Diverged:
        if checkpoint is not None:
            checkpoint.unlink(missing_ok=True)
        raise


def _part(data: ImageData, name: str) -> ImageData:
    if name == "all":
        return data
    if len(data.classes) < 4:
        raise UserError(f"{data.name} has {len(data.classes)} classes; base-to-new needs 4 or more")
    return images.subset(data, halves(data.classes)[0 if name == "base" else 1])

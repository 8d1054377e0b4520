"""multimodal-prompts classify."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from multimodal.cli.options import ClassFile, Model, Pretrained, QuickGelu, class_list, load_classifier
from multimodal.data.templates import spoken
from multimodal.training.settings import Adaptation
from retrieval_prompts.cli import console
from retrieval_prompts.cli.options import Cache, Device, JsonFile, Overwrite, Strength, with_settings
from retrieval_prompts.errors import UserError
from retrieval_prompts.prompts.settings import check_read

if TYPE_CHECKING:
    from multimodal.classifier import Floats, PromptClassifier
    from multimodal.data.pictures import Picture
    from multimodal.report.answers import Answers

ZERO_SHOT = "zero-shot"


@with_settings(Adaptation)
def classify(
    prompts: Annotated[Path, typer.Argument(help="a prompt folder, or zero-shot: nothing tuned")],
    images: Annotated[list[Path], typer.Argument(help="images, or folders of images")],
    given: dict[str, Any],
    classes: Annotated[str | None, typer.Option(help="other classes: a,b,c  [default: those of the training]")] = None,
    class_file: ClassFile = None,
    top_k: Annotated[int, typer.Option("-k", "--top-k", min=1, help="classes shown for an image")] = 3,
    model: Model = None,
    pretrained: Pretrained = None,
    quick_gelu: QuickGelu = None,
    teacher: Annotated[
        str | None, typer.Option(help="of promptkd, where it has moved: it reads the names of new classes")
    ] = None,
    strength: Strength = None,
    html: Annotated[Path | None, typer.Option(help="also write a page with the pictures")] = None,
    json_file: JsonFile = None,
    cache: Cache = None,
    device: Device = None,
    overwrite: Overwrite = False,
) -> None:
    """Say what images show, with calibrated probabilities; images that cannot be read are named and left out.

    With --adapt tpt each picture gets a prompt of its own, tuned on views of it without its class (TPT).
    """
    how = Adaptation.of(**given)
    check_read(how, given)
    console.check_outputs(json_file, html, overwrite=overwrite)
    from multimodal.data.pictures import load_pictures
    from multimodal.report.answers import answers_page
    from retrieval_prompts.report.page import write_page

    names = class_list(classes, class_file)
    if str(prompts) == ZERO_SHOT and not prompts.is_dir():
        refused = {"--strength": strength, "--teacher": teacher}
        classifier = _zero_shot(names, model, pretrained, device, quick_gelu, refused)
    else:
        classifier = load_classifier(prompts, model, pretrained, device, strength, quick_gelu, teacher)
        if teacher is not None and classifier.method.teacher is None:
            raise UserError(f"{prompts} has learned from no teacher; leave out --teacher")
    pictures = load_pictures(images if len(images) > 1 else images[0])
    labels = classifier.known_classes(names).names
    rows: list[dict[str, Any]] = []
    read: list[Picture] = []
    said: list[Floats] = []
    for picture, probabilities, before in _answers(classifier, pictures, how, names, cache):
        best = probabilities.argsort()[::-1][:top_k]
        row: dict[str, Any] = {"image": picture.place, "top": [_said(labels, probabilities, at) for at in best]}
        if before is not None:
            row["before"] = _said(labels, before, int(before.argmax()))
        rows.append(row)
        read.append(picture)
        said.append(probabilities)
    answers = _judged(_system(classifier, how, labels), read, images, labels, said)
    if html is not None:
        facts = [f"{len(labels)} classes", f"model {classifier.clip.title}", f"prompts {prompts}"]
        facts += [f"test-time tuning {how.adapt}"] if how.adapt != "none" else []
        write_page(html, answers_page(answers, facts, top_k, dict(_changed(rows))))
    if json_file is not None:
        console.write_result(json_file, rows)
    if str(json_file) == "-":
        return
    changed = dict(_changed(rows))
    for at, row in enumerate(rows):
        shown = "  ".join(map(_words, row["top"]))
        console.say(f"{row['image']}: {shown}{f'  (before: {changed[at]})' if at in changed else ''}")
    if (found := answers.confusion) is not None:
        console.say(
            f"right: {found.hits.sum():,} of {len(rows):,} ({100 * found.accuracy:.1f} %), by the names of the folders"
        )
    if how.adapt != "none":
        console.say(f"{how.adapt}: another answer than before for {len(changed)} of {len(rows)} pictures")
    if html is not None:
        console.say(f"page: {html}")


def _zero_shot(
    names: list[str] | None,
    model: str | None,
    pretrained: str | None,
    device: str | None,
    quick_gelu: bool | None,
    refused: Mapping[str, object],
) -> PromptClassifier:
    from multimodal.towers.clip import load_clip
    from multimodal.training.adaptation import untuned

    if names is None:
        raise UserError(f"{ZERO_SHOT} knows no classes of its own; give --classes a,b,c or --class-file")
    if given := [option for option, value in refused.items() if value is not None]:
        raise UserError(f"{given[0]} applies to prompts, and {ZERO_SHOT} has none; leave it out")
    return untuned(load_clip(model, pretrained, device=device, quick_gelu=quick_gelu), names)


def _answers(
    classifier: PromptClassifier,
    pictures: list[Picture],
    how: Adaptation,
    names: list[str] | None,
    cache: Path | None,
) -> Iterator[tuple[Picture, Floats, Floats | None]]:
    """(picture, probabilities, those before its prompt was tuned) of each picture that can be read."""
    if how.adapt == "none":
        from multimodal.vectors.features import image_features

        kept = [pictures[position] for position in image_features(classifier.clip, pictures, cache=cache).kept]
        for picture, found in zip(kept, classifier.predict_proba(kept, names, cache=cache), strict=True):
            yield picture, found, None
        return
    from multimodal.training.adaptation import adapted

    if classifier.answer is not None:
        print("the head of this folder is not asked: with --adapt the prompt answers for all classes", file=sys.stderr)
    for one in adapted(classifier, pictures, how, names, cache=cache):
        yield one.picture, one.probabilities, one.before


def _said(labels: Sequence[str], probabilities: Floats, at: int) -> dict[str, Any]:
    return {"class": labels[at], "probability": float(probabilities[at])}


def _words(said: dict[str, Any]) -> str:
    return f"{spoken(said['class'])} {100 * said['probability']:.1f} %"


def _changed(rows: Sequence[dict[str, Any]]) -> Iterator[tuple[int, str]]:
    """The rows whose answer is another than before their prompt was tuned, and what it was."""
    for at, row in enumerate(rows):
        if "before" in row and row["before"]["class"] != row["top"][0]["class"]:
            yield at, _words(row["before"])


def _system(classifier: PromptClassifier, how: Adaptation, labels: Sequence[str]) -> str:
    """What answers, as a sentence begins."""
    if how.adapt != "none":
        return f"A prompt tuned for each picture ({how.adapt})"
    if classifier.strength == 0:
        return "The frozen model"
    head, prompt = classifier.answer, f"prompt ({classifier.settings.method})"
    if head is None or not head.knows(labels):
        return f"The {prompt}"
    return f"The head ({head.name})" if head.knows_all(labels) else f"The head ({head.name}), beside the {prompt},"


def _judged(
    system: str, pictures: Sequence[Picture], given: Sequence[Path], labels: Sequence[str], said: Sequence[Floats]
) -> Answers:
    """The answers, beside the classes that the pictures' folders are called by, where all of them are."""
    import numpy as np

    from multimodal.data.class_names import by_folder
    from multimodal.report.answers import Answers

    values = np.stack(said) if said else np.zeros((0, len(labels)), np.float32)
    right = by_folder(pictures, given, labels) if len(pictures) else None
    return Answers(system, pictures, labels, values, right)

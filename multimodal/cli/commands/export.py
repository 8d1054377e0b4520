"""multimodal-prompts export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from multimodal.cli.options import ClassFile, Model, Pretrained, QuickGelu, class_list, load_classifier
from retrieval_prompts.cli import console
from retrieval_prompts.cli.options import Device, Overwrite, Strength


def export(
    prompts: Annotated[Path, typer.Argument(help="a prompt folder")],
    out: Annotated[Path, typer.Option(help="the folder to write")],
    classes: Annotated[str | None, typer.Option(help="other classes: a,b,c  [default: those of the training]")] = None,
    class_file: ClassFile = None,
    model: Model = None,
    pretrained: Pretrained = None,
    quick_gelu: QuickGelu = None,
    strength: Strength = None,
    device: Device = None,
    overwrite: Overwrite = False,
) -> None:
    """Write the class matrix (safetensors), the names, and a FAISS index of the classes."""
    from multimodal.interop.class_matrix import held
    from retrieval_prompts.files import CLASSES

    console.claim(out, overwrite=overwrite, holds=CLASSES)
    classifier = load_classifier(prompts, model, pretrained, device, strength, quick_gelu)
    names = class_list(classes, class_file)
    classifier.export(out, names, overwrite=overwrite)
    console.say(f"{out}: classes.safetensors, classes.json, index/ ({len(classifier.known_classes(names))} classes)")
    if (answer := held(classifier, names)) is not None:
        console.say(f"with the head that answers for them: {answer.name}")
    elif classifier.answer is not None:
        alone = "for the classes of the training alone, at full strength"
        console.say(f"without the head, which is exported {alone}: the prompt's class matrix")

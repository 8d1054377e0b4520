"""Options that several commands share, and what they read from them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from retrieval_prompts.errors import UserError

if TYPE_CHECKING:
    from multimodal.classifier import PromptClassifier
    from multimodal.data.images import ImageData

_DATA = typer.Argument(
    help="image folder (train/<class>/*, test/... or <class>/*), CSV (path,label[,split]), hf:NAME or "
    "torchvision:NAME; or captions: COCO's or Karpathy's JSON, JSONL, CSV (image,caption)"
)
Data = Annotated[str, _DATA]
DataOrNone = Annotated[str | None, _DATA]
Model = Annotated[
    str | None, typer.Option(help="open_clip name, folder or hf-hub:NAME  [default: the small CLIP that comes along]")
]
Pretrained = Annotated[str | None, typer.Option(help="with an open_clip name: a checkpoint file or tag")]
QuickGelu = Annotated[
    bool | None,
    typer.Option(
        "--quick-gelu/--no-quick-gelu", help="with a checkpoint file: was it trained with QuickGELU, as OpenAI's"
    ),
]
ImagesRoot = Annotated[Path | None, typer.Option("--images", help="folder of a caption file's images")]
ClassFile = Annotated[
    Path | None,
    typer.Option(
        "--class-file",
        help="what each class is called: label, tab, name on each line, or names alone; CSV, JSON, YAML, CoOp's "
        "classnames.txt",
    ),
]


Baselines = Annotated[
    str | None,
    typer.Option(
        help="clip-lora, 2sfs: adapt a copy of the model on the same shots; every image is encoded anew. "
        "clip-lora:STEPS,2sfs:STEPS: so many  [default: none; 500 and 300 steps a shot, as published]"
    ),
]


def baselines_of(given: str | None) -> dict[str, Any]:
    """What --baselines says of an `EvaluationProtocol`. Raises UserError."""
    from multimodal.experiments.protocols import BASELINES, SYSTEMS

    if given is None:
        return {}
    names: list[str] = []
    wanted: dict[str, int] = {}
    for each in given.split(","):
        name, colon, steps = each.partition(":")
        if name not in BASELINES or name in names or (colon and not (steps.isdecimal() and 0 < int(steps) < 2**31)):
            expected = f"{' or '.join(BASELINES)}, or both, or with steps, such as {BASELINES[0]}:200"
            raise UserError(f"--baselines: expected {expected}, got {given!r}")
        names.append(name)
        if colon:
            wanted[name] = int(steps)
    return {"systems": (*SYSTEMS, *names), "steps": wanted}


def load(data: str, class_file: Path | None) -> ImageData:
    """Labelled pictures, with their classes called as the class file says. Raises UserError."""
    from multimodal.data.class_names import load_named

    return load_named(data, class_file)


def class_list(classes: str | None, class_file: Path | None) -> list[str] | None:
    """The classes of --classes or --class-file; None: those of the training. Raises UserError."""
    if classes is not None and class_file is not None:
        raise UserError("give either --classes or --class-file, not both")
    if class_file is not None:
        from multimodal.data.class_files import read_names

        return list(read_names(class_file).values())
    if classes is None:
        return None
    names = [name.strip() for name in classes.split(",")]
    if "" in names:
        raise UserError(f"--classes {classes!r} has an empty name; write --classes cat,dog,horse")
    return names


def load_classifier(
    folder: Path,
    model: Any = None,
    pretrained: str | None = None,
    device: str | None = None,
    strength: float | None = None,
    quick_gelu: bool | None = None,
    teacher: str | None = None,
) -> PromptClassifier:
    """See `PromptClassifier.load`; imported when it is needed."""
    from multimodal.classifier import PromptClassifier

    return PromptClassifier.load(
        folder,
        model,
        pretrained=pretrained,
        device=device,
        strength=strength,
        quick_gelu=quick_gelu,
        teacher=teacher,
    )


def check_kind(captions: bool, images: Path | None, labelled: dict[str, bool]) -> None:
    """Refuse options that the kind of data has no use for. `labelled`: an option of labelled data -> is it given."""
    if captions and any(labelled.values()):
        given = ", ".join(option for option, there in labelled.items() if there)
        raise UserError(f"captions have no classes; leave out {given}")
    if images is not None and not captions:
        raise UserError("--images is the folder of a caption file's images; leave it out")

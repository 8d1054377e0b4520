"""multimodal-prompts classify."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from multimodal.cli.options import ClassFile, Model, Pretrained, QuickGelu, class_list, load_classifier
from retrieval_prompts.cli import console
from retrieval_prompts.cli.options import Cache, Device, JsonFile, Overwrite, Strength


def classify(
    prompts: Annotated[Path, typer.Argument(help="a prompt folder")],
    images: Annotated[list[Path], typer.Argument(help="images, or folders of images")],
    classes: Annotated[str | None, typer.Option(help="other classes: a,b,c  [default: those of the training]")] = None,
    class_file: ClassFile = None,
    top_k: Annotated[int, typer.Option("-k", "--top-k", min=1, help="classes shown for an image")] = 3,
    model: Model = None,
    pretrained: Pretrained = None,
    quick_gelu: QuickGelu = None,
    strength: Strength = None,
    html: Annotated[Path | None, typer.Option(help="also write a page with the pictures")] = None,
    json_file: JsonFile = None,
    cache: Cache = None,
    device: Device = None,
    overwrite: Overwrite = False,
) -> None:
    """Say what images show, with calibrated probabilities; images that cannot be read are named and left out."""
    console.check_outputs(json_file, html, overwrite=overwrite)
    from multimodal.data.pictures import load_pictures
    from multimodal.vectors.features import image_features

    names = class_list(classes, class_file)
    classifier = load_classifier(prompts, model, pretrained, device, strength, quick_gelu)
    pictures = load_pictures(images if len(images) > 1 else images[0])
    readable = image_features(classifier.clip, pictures, cache=cache)
    pictures = [pictures[position] for position in readable.kept]
    found = classifier.predict_proba(pictures, names, cache=cache)
    labels = classifier.known_classes(names).names
    rows = []
    for picture, probabilities in zip(pictures, found, strict=True):
        best = probabilities.argsort()[::-1][:top_k]
        top = [{"class": labels[at], "probability": float(probabilities[at])} for at in best]
        rows.append({"image": picture.place, "top": top})
    if html is not None:
        from multimodal.report.gallery import Bar, Figure, page
        from retrieval_prompts.report.page import write_page

        figures = [
            Figure(
                picture.load,
                picture.name,
                bars=tuple(Bar(one["class"], one["probability"]) for one in row["top"]),  # type: ignore[index]
            )
            for picture, row in zip(pictures, rows, strict=True)
        ]
        facts = [f"{len(labels)} classes", f"model {classifier.clip.title}", f"prompts {prompts}"]
        write_page(html, page(f"{len(rows)} images classified", figures, lines=facts))
    if json_file is not None:
        console.write_result(json_file, rows)
    if str(json_file) == "-":
        return
    for row in rows:
        shown = "  ".join(f"{one['class']} {100 * one['probability']:.1f} %" for one in row["top"])  # type: ignore[index]
        console.say(f"{row['image']}: {shown}")
    if html is not None:
        console.say(f"page: {html}")

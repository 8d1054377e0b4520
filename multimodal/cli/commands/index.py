"""multimodal-prompts index."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from multimodal.cli.options import Model, Pretrained, QuickGelu, load_classifier
from retrieval_prompts.cli import console
from retrieval_prompts.cli.options import Cache, Device, Overwrite, Strength, check_strength
from retrieval_prompts.errors import UserError


def index(
    images: Annotated[Path, typer.Argument(help="a folder of images")],
    out: Annotated[Path, typer.Option(help="the index folder to write")],
    model: Model = None,
    pretrained: Pretrained = None,
    quick_gelu: QuickGelu = None,
    prompts: Annotated[
        Path | None,
        typer.Option(help="prompts in the image tower (vpt, maple, mmrl, promptsrc); those of texts need none"),
    ] = None,
    strength: Strength = None,
    captions: Annotated[Path | None, typer.Option(help="a caption file, to show captions with the hits")] = None,
    factory: Annotated[str, typer.Option(help="FAISS index string: Flat, HNSW32, IVF256,SQ8 ...")] = "Flat",
    cache: Cache = None,
    device: Device = None,
    overwrite: Overwrite = False,
) -> None:
    """Encode images and build a FAISS index. Prompts for the text side change nothing here."""
    from retrieval_prompts.files import INDEX

    check_strength(strength, prompts)
    console.claim(out, overwrite=overwrite, holds=INDEX)
    from multimodal.data.pictures import load_pictures
    from multimodal.towers.clip import load_clip
    from multimodal.vectors.image_index import build_index

    pictures = load_pictures(images)
    texts: dict[str, str] = {}
    if captions is not None:
        from multimodal.data.captions import load_captions

        described = load_captions(captions, images=images)
        texts = {
            picture.name: " / ".join(own) for picture, own in zip(described.pictures, described.captions, strict=True)
        }
    root = images if images.is_dir() else images.parent
    seen, given = None, ""
    if prompts is None:
        clip = load_clip(model, pretrained, device=device, quick_gelu=quick_gelu)
    else:
        classifier = load_classifier(prompts, model, pretrained, device, strength, quick_gelu)
        clip, seen = classifier.clip, classifier.picture_prompts()
        if seen is None:
            raise UserError(
                f"{prompts} does not enter the image tower: leave out --prompts here, and give them to search"
            )
        given = f" --prompts {shlex.quote(str(prompts))}" + (
            f" --strength {strength:g}" if strength is not None else ""
        )
    built = build_index(clip, pictures, root=root, texts=texts, factory=factory, cache=cache, prompts=seen)
    built.save(out, overwrite=overwrite)
    console.say(f"{out}: {len(built):,} images, {factory}")
    console.say(f'next: multimodal-prompts search {shlex.quote(str(out))} "a red boat" --html boats.html{given}')

"""multimodal-prompts index."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from multimodal.cli.options import Model, Pretrained, QuickGelu
from retrieval_prompts.cli import console
from retrieval_prompts.cli.options import Cache, Device, Overwrite


def index(
    images: Annotated[Path, typer.Argument(help="a folder of images")],
    out: Annotated[Path, typer.Option(help="the index folder to write")],
    model: Model = None,
    pretrained: Pretrained = None,
    quick_gelu: QuickGelu = None,
    captions: Annotated[Path | None, typer.Option(help="a caption file, to show captions with the hits")] = None,
    factory: Annotated[str, typer.Option(help="FAISS index string: Flat, HNSW32, IVF256,SQ8 ...")] = "Flat",
    cache: Cache = None,
    device: Device = None,
    overwrite: Overwrite = False,
) -> None:
    """Encode images and build a FAISS index. Prompts for the text side change nothing here."""
    from retrieval_prompts.files import INDEX

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
    built = build_index(
        load_clip(model, pretrained, device=device, quick_gelu=quick_gelu),
        pictures,
        root=root,
        texts=texts,
        factory=factory,
        cache=cache,
    )
    built.save(out, overwrite=overwrite)
    console.say(f"{out}: {len(built):,} images, {factory}")
    console.say(f'next: multimodal-prompts search {shlex.quote(str(out))} "a red boat" --html boats.html')

"""multimodal-prompts search."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from multimodal.cli.options import Pretrained, QuickGelu, load_classifier
from retrieval_prompts.cli import console
from retrieval_prompts.cli.options import Device, JsonFile, Overwrite, Strength, check_strength
from retrieval_prompts.errors import DataWarning, UserError

if TYPE_CHECKING:
    from PIL.Image import Image

    from multimodal.data.pictures import Picture
    from multimodal.vectors.image_index import Hit


def search(
    index: Annotated[Path, typer.Argument(help="an index folder")],
    query: Annotated[str | None, typer.Argument(help="what to look for")] = None,
    image: Annotated[Path | None, typer.Option(help="look for images like this one instead")] = None,
    prompts: Annotated[Path | None, typer.Option(help="a prompt folder, for the words")] = None,
    strength: Strength = None,
    model: Annotated[str | None, typer.Option(help="the model, when it has moved  [default: the index's own]")] = None,
    pretrained: Pretrained = None,
    quick_gelu: QuickGelu = None,
    images: Annotated[
        Path | None, typer.Option(help="where the pictures are  [default: where the index says, if they are the same]")
    ] = None,
    top_k: Annotated[int, typer.Option("-k", "--top-k", min=1, help="how many hits")] = 10,
    html: Annotated[Path | None, typer.Option(help="also write a page with the pictures")] = None,
    json_file: JsonFile = None,
    nprobe: Annotated[int | None, typer.Option(help="lists that an IVF index visits")] = None,
    ef_search: Annotated[int | None, typer.Option(help="candidates that an HNSW index keeps")] = None,
    device: Device = None,
    overwrite: Overwrite = False,
) -> None:
    """Search an index of images with words, or with an image."""
    if (query is None) == (image is None):
        raise UserError("give either words to look for, or --image")
    if query is not None and not query.strip():
        raise UserError("the query is empty; write what you look for in quotes")
    if image is not None and image.is_dir():
        raise UserError(f"{image} is a folder; --image expects one picture")
    if images is not None and not images.is_dir():
        raise UserError(f"{images} is not a folder; --images expects the one that the pictures are in")
    check_strength(strength, prompts)
    console.check_outputs(json_file, html, overwrite=overwrite)
    from multimodal.data.pictures import load_pictures
    from multimodal.evaluation.feedback import query_vectors
    from multimodal.vectors import image_index

    opened, clip = image_index.open_with_model(index, model, pretrained, device=device, quick_gelu=quick_gelu)
    asked, seen = None, None
    used: Any = (None, 1.0)
    if prompts is not None:
        classifier = load_classifier(prompts, clip, strength=strength)
        used, seen = classifier.search_prompts(), classifier.picture_prompts()
    if image is not None and prompts is not None and seen is None:
        raise UserError("--prompts apply to words; a search by image takes none")
    image_index.check_prompts(opened, seen)
    if image is not None:
        (asked,) = load_pictures(image)
        vector = image_index.picture_vector(clip if seen is None else seen, asked)
    else:
        vector = query_vectors(clip, [str(query)], used[0], opened, strength=used[1], seen=seen is not None)
    hits = image_index.search(opened, vector, top_k, images=images, nprobe=nprobe, ef_search=ef_search)
    if html is not None:
        facts = [f"{len(opened):,} images", f"model {clip.title}", *([f"prompts {prompts}"] if prompts else [])]
        _write_page(html, hits, asked or str(query), facts)
    if json_file is not None:
        rows = [{"id": hit.id, "score": hit.score, "text": hit.text, "path": str(hit.path)} for hit in hits]
        console.write_result(json_file, rows)
    if str(json_file) == "-":
        return
    for rank, hit in enumerate(hits, start=1):
        console.say(f"{rank:3}. {hit.score:.4f}  {hit.id}{f'  {hit.text[:100]}' if hit.text else ''}")
    if html is not None:
        console.say(f"page: {html}")


def _write_page(html: Path, hits: Sequence[Hit], asked: Picture | str, facts: Sequence[str]) -> None:
    """The page of the hits; a warning where pictures are not on it."""
    from multimodal.data.pictures import short_names
    from multimodal.report.gallery import LIMIT, Figure, page
    from retrieval_prompts.report.page import write_page

    refused: list[str] = []

    def load(hit: Hit) -> Image:
        try:
            return hit.picture.load()
        except UserError as error:
            refused.append(str(error))
            raise

    figures = [
        Figure(partial(load, hit), name, hit.text, f"{hit.score:.3f}", place=hit.id)
        for hit, name in zip(hits, short_names([hit.id for hit in hits]), strict=True)
    ]
    heading, shown = (
        (f"“{asked}”", None) if isinstance(asked, str) else (f"Like {asked.name}", Figure(asked.load, asked.name))
    )
    write_page(html, page(heading, figures, lines=facts, query=shown))
    if refused:
        message = f"{len(refused)} of {min(len(hits), LIMIT)} pictures are not on the page: {refused[0]}"
        warnings.warn(message, DataWarning, stacklevel=2)

"""multimodal-prompts index."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from multimodal.cli.options import Model, Pretrained, QuickGelu, load_classifier
from retrieval_prompts.cli import console
from retrieval_prompts.cli.machines import IN_PROCESS, Machines, Place, with_machines
from retrieval_prompts.cli.options import Cache, Device, Overwrite, Strength, check_strength
from retrieval_prompts.errors import UserError

if TYPE_CHECKING:
    from multimodal.classifier import PromptClassifier
    from multimodal.data.pictures import Picture
    from multimodal.towers.clip import Clip
    from multimodal.vectors.image_index import ImageIndex
    from multimodal.vectors.prompted import PromptedTower


@with_machines
def index(
    images: Annotated[Path, typer.Argument(help="a folder of images")],
    out: Annotated[Path, typer.Option(help="the index folder to write")],
    machines: Machines = IN_PROCESS,
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
    """Encode images and build a FAISS index. Prompts for the text side change nothing here. With --engine ray workers
    encode, and their vectors stay beside the index."""
    many = machines.wanted()
    if many and cache is not None:
        raise UserError("--cache is of images that this process encodes; workers keep their vectors in --vectors")
    if many and prompts is not None:
        raise UserError("workers encode pictures without prompts; leave out --prompts, or --engine ray")
    from retrieval_prompts.files import INDEX

    check_strength(strength, prompts)
    console.claim(out, overwrite=overwrite, holds=INDEX)
    from multimodal.data.pictures import load_pictures
    from multimodal.towers.clip import load_clip
    from multimodal.vectors.image_index import build_index
    from retrieval_prompts.vectors import faiss_index

    pictures = load_pictures(images)
    texts: dict[str, str] = {}
    if captions is not None:
        from multimodal.data.captions import load_captions

        described = load_captions(captions, images=images)
        texts = {
            picture.name: " / ".join(own) for picture, own in zip(described.pictures, described.captions, strict=True)
        }
    root = images if images.is_dir() else images.parent
    workers = machines.place(out, device, overwrite) if many else None
    seen, given, said = None, "", ""
    if prompts is None:
        clip = load_clip(model, pretrained, device="cpu" if workers else device, quick_gelu=quick_gelu)
    else:
        seen = _prompted(load_classifier(prompts, model, pretrained, device, strength, quick_gelu), prompts)
        clip, given = seen.clip, f" --prompts {shlex.quote(str(prompts))}"
        given += f" --strength {strength:g}" if strength is not None else ""
    faiss_index.check(factory, clip.dimension)
    if workers is None:
        built = build_index(clip, pictures, root=root, texts=texts, factory=factory, cache=cache, prompts=seen)
        built.save(out, overwrite=overwrite)
    else:
        built, said = _by_workers(workers, clip, pictures, out, root, texts, factory, overwrite)
    console.say(f"{out}: {len(built):,} images, {factory}{said}")
    console.say(f'next: multimodal-prompts search {shlex.quote(str(out))} "a red boat" --html boats.html{given}')


def _prompted(classifier: PromptClassifier, prompts: Path) -> PromptedTower:
    """What encodes pictures under prompts. Raises UserError for those that do not enter the image tower."""
    found = classifier.picture_prompts()
    if found is None:
        raise UserError(f"{prompts} does not enter the image tower: leave out --prompts here, and give them to search")
    return found


def _by_workers(
    workers: Place,
    clip: Clip,
    pictures: list[Picture],
    out: Path,
    root: Path,
    texts: dict[str, str],
    factory: str,
    overwrite: bool,
) -> tuple[ImageIndex, str]:
    """The index, and what is to be said of it."""
    from multimodal.interop.picture_shards import encode_pictures, of_parts, write_index

    with workers.started():
        done = encode_pictures(clip, pictures, workers.folder, **workers.run)
        shown = of_parts(workers.folder, root, texts)
        with workers.building(shown.parts) as write:
            options = {"factory": factory, "overwrite": overwrite, "write": write}
            built = write_index(clip, shown, out, **options)
    return built, f"; {workers.said(done)}, in {workers.folder}{workers.merged(built)}"

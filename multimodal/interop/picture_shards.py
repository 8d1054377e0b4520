"""Pictures in shards -> vectors in Parquet, by a pool of workers on one or many machines; and an index of these.

    encoded = encode_pictures(load_clip(), load_pictures("photos"), "VECTORS")
    index = write_index(clip, of_parts("VECTORS", "photos"), "INDEX")

The vectors are those of `image_features`. A shard whose vectors are there, whole, of the same pictures and model, is
not encoded again.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multimodal.data.pictures import Picture
from multimodal.towers.clip import Clip, reload_clip
from multimodal.vectors.features import readable_features, report
from multimodal.vectors.image_index import (
    BESIDE,
    ImageIndex,
    documents_of,
    encoder,
    shown_from,
    write_digests,
)
from retrieval_prompts.data.corpus import Document
from retrieval_prompts.errors import UserError
from retrieval_prompts.interop.scale import parts_run, pool, vector_files
from retrieval_prompts.interop.scale.parts_run import Encoded
from retrieval_prompts.interop.scale.vector_files import Parts

SHARD = 1024  # pictures: whole batches, so that each picture has the batch mates that it has in one process
DIGEST = "sha256"  # the column of what `Features.digests` holds

Load = Callable[[str], Clip]  # a device -> the model there


def encode_pictures(
    clip: Clip,
    pictures: Sequence[Picture],
    folder: Path | str,
    *,
    load: Load | None = None,
    size: int = SHARD,
    half: bool = False,
    overwrite: bool = False,
    wanted: pool.Wanted = pool.ANY,
) -> Encoded:
    """Encode pictures in files and write their vectors into a folder (see `vector_files`).

    Args:
        clip: what the vectors are to be of. It encodes nothing itself.
        folder: which all machines see under this name, as they see the pictures.
        load: makes the same on a worker; None: loads it by its name there.
        size: pictures of a shard.
        half, overwrite, wanted: see `parts_run.encode`.

    Pictures that cannot be read are skipped, counted and named in one DataWarning.

    Raises:
        UserError: as `parts_run.encode`; if none can be read; for a picture that is no file.
    """
    places = []
    for picture in pictures:
        if not isinstance(picture.source, Path):
            raise UserError(f"workers read files, and {picture.name} is none; save the pictures in a folder")
        places.append([picture.name, str(picture.source.absolute())])
    shards = [{"pictures": places[start : start + size]} for start in range(0, len(places), size)]
    make = partial(_encoding, load or portable(clip), encoder(clip))
    run: dict[str, Any] = {"half": half, "overwrite": overwrite, "wanted": wanted, "said": "encode images"}
    done = parts_run.encode(shards, make, folder, encoder(clip), **run)
    report([reason for _, notes in vector_files.contents(Path(folder)) for _, reason in notes], len(pictures))
    return done


def portable(clip: Clip) -> Load:
    """What loads a model by its name on another machine, where files lie at the same absolute paths."""
    name, pretrained = clip.name, clip.pretrained
    if name.startswith("local-dir:"):
        name = f"local-dir:{Path(name.removeprefix('local-dir:')).absolute()}"
    if pretrained is not None and Path(pretrained).is_file():
        pretrained = str(Path(pretrained).absolute())
    return partial(_load, name, pretrained)


def _load(name: str, pretrained: str | None, device: str) -> Clip:
    return reload_clip(name, pretrained, device=device)


# --- the index -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shown:
    """Vectors of pictures, and what an index shows and keeps of these.

    Args:
        documents: names, labels or captions, in the order of the vectors.
        digests: see `Features`.
        root: the folder that names are relative to.
    """

    parts: Parts
    documents: list[Document]
    digests: NDArray[np.uint8]
    root: Path


def of_parts(folder: Path | str, root: Path | str, texts: Mapping[str, str] | None = None) -> Shown:
    """What `encode_pictures` wrote. `root`, `texts`: see `build_index`. Raises UserError."""
    names: list[str] = []
    digests: list[str] = []
    for columns, _ in vector_files.contents(Path(folder)):
        names.extend(columns["_id"])
        digests.extend(columns[DIGEST])
    table = np.frombuffer(bytes.fromhex("".join(digests)), np.uint8).reshape(len(names), 32)
    return Shown(Parts(Path(folder), names), documents_of(names, texts), table, Path(root))


def write_index(clip: Clip, shown: Shown, out: Path | str, **options: Any) -> ImageIndex:
    """Write an index of these pictures. `options`: of `Index.write`. Raises UserError."""
    beside = {BESIDE: partial(write_digests, shown.digests)}
    described = shown_from(clip, shown.root)
    written = ImageIndex.write(out, shown.parts, shown.documents, encoder=described, beside=beside, **options)
    written.digests = shown.digests
    return written


# --- on a worker ---------------------------------------------------------------------------------------------------


def _encoding(load: Load, identity: Mapping[str, Any], device: str) -> parts_run.Encode:
    """What a worker does with each shard; the model is loaded when the first one wants it."""
    loaded: list[Clip] = []

    def clip() -> Clip:
        if not loaded:
            found = load(device)
            parts_run.check_same(encoder(found), identity)
            loaded.append(found)
        return loaded[0]

    def encode(given: dict[str, Any], path: Path, numbers: str) -> dict[str, int]:
        pictures = [Picture(name, Path(source)) for name, source in given["pictures"]]
        part = vector_files.Part(identity, _digest(pictures), numbers)
        if (count := vector_files.there(path, part)) is not None:
            return {"documents": count, "empty": len(pictures) - count}
        with tempfile.TemporaryDirectory() as cache:  # the parts are what is kept
            found = readable_features(clip(), pictures, views=1, cache=Path(cache), progress=False)
            vectors = np.concatenate([np.empty((0, found.dimension), np.float32), *found.blocks()])
        names = [pictures[position].name for position in found.kept]
        digests = [row.tobytes().hex() for row in found.digests]
        vector_files.write(path, part, names, vectors, beside={DIGEST: digests}, notes=found.skipped)
        return {"documents": len(names), "empty": len(found.skipped), "encoded": found.encoded, "made": 1}

    return encode


def _digest(pictures: Sequence[Picture]) -> str:
    """A sha256 over the names and contents of pictures."""
    found = hashlib.sha256()
    for picture in pictures:
        try:
            content = hashlib.sha256(picture.read()).hexdigest()
        except UserError:
            content = ""
        found.update(json.dumps([picture.name, content]).encode())
    return found.hexdigest()

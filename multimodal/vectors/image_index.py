"""An index of pictures, found by words or by a picture.

Pictures are never prompted here: their features are computed once, and one index serves the frozen model and every
prompt of the text side.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from multimodal.data.pictures import Picture
from multimodal.vectors.features import image_features
from retrieval_prompts.data.beir_folder import Document
from retrieval_prompts.errors import UserError
from retrieval_prompts.vectors.index import Index

if TYPE_CHECKING:
    from multimodal.towers.clip import Clip


@torch.no_grad()
def picture_vector(clip: Clip, picture: Picture) -> Tensor:
    """A picture -> (1, D) of unit length, on the CPU. Raises UserError if it cannot be read."""
    return clip.encode_images(clip.preprocess(picture.load())[None]).cpu()


def encoder(clip: Clip) -> dict[str, Any]:
    """What an index says of the model that made it. Both towers count: texts are compared with its pictures."""
    return {"fingerprint": clip.fingerprint, "model": clip.name, "pretrained": clip.pretrained}


def build_index(
    clip: Clip,
    pictures: Sequence[Picture],
    *,
    root: Path | str,
    texts: Mapping[str, str] | None = None,
    factory: str = "Flat",
    cache: Path | None = None,
) -> Index:
    """Encode pictures, as far as they are not in the cache, and index them by name. Unreadable ones are left out.

    Args:
        root: the folder that names are relative to, kept in the index to show its pictures.
        texts: name -> a label or captions, shown with a hit.
        factory: see `Index.build`.
        cache: see `image_features`.
    """
    features = image_features(clip, pictures, cache=cache)
    kept = [pictures[position] for position in features.kept]
    documents = [Document(each.name, Path(each.name).name, (texts or {}).get(each.name, "")) for each in kept]
    ids = [each.name for each in kept]
    described = {**encoder(clip), "images": str(Path(root).absolute())}
    return Index.build(features.blocks(), documents, ids, encoder=described, factory=factory)


@dataclass(frozen=True)
class Hit:
    """A picture that was found. `score` is a cosine; `text` a label or captions, or empty."""

    id: str
    score: float
    title: str
    text: str
    picture: Picture


def search(index: Index, vector: Tensor, k: int = 10, **parameters: int | None) -> list[Hit]:
    """The k pictures nearest to a vector (1, D). `parameters`: see `Index.search`.

    The vector must come from the model of the index: `index.check_encoder(encoder(clip))` before. Raises UserError for
    a hit whose name leads out of the index's folder of pictures.
    """
    scores, (ids,) = index.search(vector.numpy(), k, **parameters)
    root = Path(index.manifest["encoder"].get("images", ""))
    found = [(index.document(id), score) for id, score in zip(ids, scores[0].tolist(), strict=False)]
    for document, _ in found:
        _check_within(root, document.id)
    return [
        Hit(document.id, score, document.title, document.text, Picture(document.id, root / document.id))
        for document, score in found
    ]


def _check_within(root: Path, name: str) -> None:
    """The folder is taken as the index says; a name may not lead out of it."""
    if "\0" in name or not Path(os.path.abspath(root / name)).is_relative_to(os.path.abspath(root)):
        raise UserError(f"the index names the picture {name!r}, outside its folder {root}; it is not shown")

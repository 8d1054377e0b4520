"""An index of pictures, found by words or by a picture.

Pictures are never prompted here: their features are computed once, and one index serves the frozen model and every
prompt of the text side.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from multimodal.data.pictures import Picture
from multimodal.vectors.features import image_features
from retrieval_prompts.data.corpus import Document
from retrieval_prompts.errors import UserError
from retrieval_prompts.files import read_array
from retrieval_prompts.vectors.index import Index

if TYPE_CHECKING:
    from multimodal.towers.clip import Clip
    from multimodal.vectors.prompted import PromptedTower

PROMPTS = "prompts"  # in what an index says of its encoder: those in the image tower
BESIDE = "pictures"  # the folder of the digests
ASK = "say where the pictures are with --images FOLDER (images=...)"


@torch.no_grad()
def picture_vector(clip: Clip | PromptedTower, picture: Picture) -> Tensor:
    """A picture -> (1, D) of unit length, on the CPU.

    Raises:
        UserError: if it cannot be read.
    """
    return clip.encode_images(clip.preprocess(picture.load())[None]).cpu()


def write_digests(digests: NDArray[np.uint8], folder: Path) -> None:
    """What an index keeps of its pictures, (n, 32), in a folder of its own."""
    folder.mkdir()
    np.save(folder / "digests.npy", digests, allow_pickle=False)


def encoder(clip: Clip) -> dict[str, Any]:
    """What an index says of the model that made it. Both towers count: texts are compared with its pictures."""
    return {"fingerprint": clip.fingerprint, "model": clip.name, "pretrained": clip.pretrained}


class ImageIndex(Index):
    """An index of pictures.

    It names its pictures by a folder and their paths in it, and both may be anyone's words: an index that came from
    elsewhere could name whatever lies on this disk. So it keeps the sha256 of each picture that was indexed, and a hit
    gives the picture of its path only where the file is that one, or where the user says in which folder they are.
    """

    digests: NDArray[np.uint8] | None = None  # (n, 32); None in indexes of before there were any

    def save(
        self,
        folder: Path | str,
        overwrite: bool = False,
        *,
        beside: Mapping[str, Callable[[Path], object]] | None = None,
    ) -> None:
        """See `Index.save`; the digests are in the folder too."""
        own = {} if self.digests is None else {BESIDE: partial(write_digests, self.digests)}
        super().save(folder, overwrite, beside={**(beside or {}), **own})

    @classmethod
    def open(cls, folder: Path | str, mmap: bool = True, gpu: bool = False) -> Self:
        """See `Index.open`."""
        opened = super().open(folder, mmap, gpu)
        if opened.has_beside(folder, BESIDE):
            try:
                found = read_array(Path(folder) / BESIDE / "digests.npy", np.uint8, 2)
            except (OSError, ValueError) as error:
                raise UserError(f"the index in {folder} is damaged, index again: {error}") from None
            if found.shape != (len(opened), 32):
                raise UserError(f"the index in {folder} is damaged, index again: it has {found.shape} digests")
            opened.digests = found
        return opened

    def picture(self, id: str, images: Path | str | None = None) -> Picture:
        """The picture of this id, in the folder that the index names, or in `images`.

        Raises:
            UserError: where its name leads out of the folder.
        """
        root = self._root(images)
        _check_within(root, id)
        if images is not None:
            return Picture(id, root / id)
        return Picture(id, partial(self._indexed, id, root / id))

    def content(self, position: int, images: Path | str | None = None) -> bytes:
        """The file of the picture at a position, which has to be the one that was indexed, wherever it is.

        Raises:
            UserError: for any other, and for one whose name leads out of the folder.
        """
        id, root = self.ids[position], self._root(images)
        _check_within(root, id)
        return self._indexed(id, root / id)

    def _root(self, images: Path | str | None) -> Path:
        return Path(self.manifest["encoder"].get("images", "") if images is None else images)

    def _indexed(self, id: str, path: Path) -> bytes:
        """The file's content, if that was indexed under this id."""
        if self.digests is None:
            raise UserError(
                f"the index has no checksums of its pictures, so {path} is not shown; {ASK}, or index again"
            )
        content, position = Picture(id, path).read(), self.ids.position(id)
        if position is None or hashlib.sha256(content).digest() != self.digests[position].tobytes():
            raise UserError(f"{path} is not the picture that was indexed; index again, or {ASK}")
        return content


def open_with_model(
    folder: Path | str,
    model: str | None = None,
    pretrained: str | None = None,
    *,
    device: str | None = None,
    quick_gelu: bool | None = None,
) -> tuple[ImageIndex, Clip]:
    """An index, and the model that made it.

    Args:
        model, pretrained: where it has moved; None: as the index says.
        quick_gelu: see `load_clip`.

    Raises:
        UserError: for an index of texts, and for another model.
    """
    from multimodal.towers.clip import load_clip, reload_clip

    opened = ImageIndex.open(folder)
    maker = opened.manifest["encoder"]
    if "images" not in maker:
        raise UserError(f"{folder} is not an index of images; texts are searched by retrieval-prompts search")
    name, weights = model or maker["model"], pretrained or (None if model else maker.get("pretrained"))
    clip = (
        reload_clip(name, weights, device=device)
        if quick_gelu is None
        else load_clip(name, weights, device=device, quick_gelu=quick_gelu)
    )
    opened.check_encoder(encoder(clip))
    return opened, clip


def check_prompts(index: ImageIndex, prompts: PromptedTower | None) -> None:
    """Raises UserError unless the index was made with these prompts in the image tower, or both with none."""
    made, given = index.manifest["encoder"].get(PROMPTS), None if prompts is None else prompts.image_fingerprint
    if made == given:
        return
    if given is None:
        raise UserError(
            "the pictures of this index have prompts in the image tower: multimodal-prompts search --prompts finds"
            " them, with the same"
        )
    other = "with other ones, or at another strength" if made else "without them"
    raise UserError(
        f"these prompts enter the image tower, and the index was made {other}; make one that has them:"
        " multimodal-prompts index IMAGES --prompts PROMPTS"
    )


def build_index(
    clip: Clip,
    pictures: Sequence[Picture],
    *,
    root: Path | str,
    texts: Mapping[str, str] | None = None,
    factory: str = "Flat",
    cache: Path | None = None,
    prompts: PromptedTower | None = None,
) -> ImageIndex:
    """Encode pictures, as far as they are not in the cache, and index them by name. Unreadable ones are left out.

    Args:
        root: the folder that names are relative to, kept in the index to show its pictures.
        texts: name -> a label or captions, shown with a hit.
        factory: see `Index.build`.
        cache: see `image_features`.
        prompts: in the image tower; searches of the index must have the same.
    """
    features = image_features(clip if prompts is None else prompts, pictures, cache=cache)
    ids = [pictures[position].name for position in features.kept]
    described = shown_from(clip, root)
    if prompts is not None:
        described[PROMPTS] = prompts.image_fingerprint
    built = ImageIndex.build(features.blocks(), documents_of(ids, texts), ids, encoder=described, factory=factory)
    built.digests = features.digests
    return built


def documents_of(names: Sequence[str], texts: Mapping[str, str] | None) -> list[Document]:
    """What is shown with a hit. `texts`: see `build_index`."""
    return [Document(name, Path(name).name, (texts or {}).get(name, "")) for name in names]


def shown_from(clip: Clip, root: Path | str) -> dict[str, Any]:
    """What an index says of the model that made it, and of where its pictures are."""
    return {**encoder(clip), "images": str(Path(root).absolute())}


@dataclass(frozen=True)
class Hit:
    """A picture that was found. `score` is a cosine; `text` a label or captions, or empty."""

    id: str
    score: float
    title: str
    text: str
    path: Path
    picture: Picture


def search(
    index: ImageIndex, vector: Tensor, k: int = 10, *, images: Path | str | None = None, **parameters: int | None
) -> list[Hit]:
    """The k pictures nearest to a vector (1, D). `parameters`: see `Index.search`.

    The vector must come from the model of the index: `index.check_encoder(encoder(clip))` before.

    Args:
        images: where the pictures are, if not in the folder that the index names.

    Raises:
        UserError: for a hit whose name leads out of the folder of pictures.
    """
    scores, (ids,) = index.search(vector.numpy(), k, **parameters)
    root = index._root(images)
    found = [(index.document(id), score) for id, score in zip(ids, scores[0].tolist(), strict=False)]
    return [
        Hit(one.id, score, one.title, one.text, root / one.id, index.picture(one.id, images)) for one, score in found
    ]


def _check_within(root: Path, name: str) -> None:
    if "\0" in name or not Path(os.path.abspath(root / name)).is_relative_to(os.path.abspath(root)):
        raise UserError(f"the index names the picture {name!r}, outside its folder {root}; it is not shown")

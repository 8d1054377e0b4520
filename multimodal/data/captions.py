"""Pictures with their captions, from any file that `caption_files` reads. Knows no labels."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from multimodal.data.caption_files import rows
from multimodal.data.pictures import Picture
from multimodal.data.splits import split_name
from retrieval_prompts.data.lines import characters
from retrieval_prompts.errors import DataWarning, UserError, few

WAYS = ("i2t", "t2i")  # of a search: a picture asks for captions, words ask for pictures


@dataclass(frozen=True)
class Captioned:
    """Pictures, each with one caption or more.

    Args:
        captions: one list a picture, in the order of the file.
        split: "train", "val" or "test", or None for all that the file lists.
    """

    name: str
    pictures: list[Picture]
    captions: list[list[str]]
    split: str | None = None

    def __len__(self) -> int:
        return len(self.pictures)


def load_captions(file: str | Path, split: str | None = None, *, images: str | Path | None = None) -> Captioned:
    """Read a list of captions; the pictures are not opened, but have to be there.

    Args:
        file: one of
            - .json as Karpathy published it: {"images": [{"filename", "sentences": [{"raw"}], "split"}]}, and maybe
              "filepath"; as COCO has it: {"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]};
              a list of objects as in .jsonl; or an object of captions by picture;
            - .jsonl with "file" or "image", "captions" (a list) or "caption", and maybe "split" or "flickr8k_split";
            - .csv or .tsv with the header image,caption[,split];
            - .txt or .token without a header, as Flickr8k has it: picture.jpg#0, a tab, the caption;
            - a folder of pictures, each with a .txt of captions beside it, or with a metadata.jsonl or metadata.csv.
            A picture may have several lines, and the fields other usual names (`caption_files`). Gzipped files are
            read, too.
        split: only this split; restval is train, dev is val. None: all.
        images: the folder that the names of pictures are relative to; None: the folder of `file`, or the one above,
            or "images" in either.

    Captions without a word and pictures that are not there are left out, counted in a DataWarning each.

    Raises:
        UserError: with file and line for what is malformed, for a split that no picture has, and where no picture is
            there.
    """
    path = Path(file)
    wanted = None if split is None else split_name(split, "captions")
    root = (path if path.is_dir() else path.parent) if images is None else Path(images)
    if not root.is_dir():
        raise UserError(f"{root} is not a folder; expected the one that {path} names its pictures in")
    captions: dict[str, list[str]] = {}
    splits: dict[str, str | None] = {}
    others: dict[str, tuple[str, ...]] = {}
    wordless: list[str] = []
    for row in rows(path):
        if splits.setdefault(row.image, row.split) != row.split:
            raise UserError(f"{row.where}: {row.image} is in {row.split} here and in {splits[row.image]} above")
        if wanted is not None and row.split != wanted:
            continue
        kept = [characters(caption.strip(), "a caption", row.where) for caption in row.captions if caption.strip()]
        wordless += [row.where] * (len(row.captions) - len(kept))
        if kept:
            captions.setdefault(row.image, []).extend(kept)
            others[row.image] = row.others
    if wordless:
        message = f"{path}: {len(wordless)} captions without a word are left out ({few(wordless)})"
        warnings.warn(message, DataWarning, stacklevel=2)
    if not captions and wanted is not None and splits:
        there = ", ".join(sorted({name or "no split at all" for name in splits.values()}))
        raise UserError(f"{path} has no captions of the split {split!r}; it has {there}")
    if not captions:
        raise UserError(f"{path} has no captions")
    roots = [root]
    if images is None:
        roots += [place for up in (root, root.parent) for place in (up, up / "images", up / "Images")][1:]
    pictures = _find(roots, others, path)
    return Captioned(path.name.split(".")[0], pictures, [captions[picture.name] for picture in pictures], wanted)


def _find(roots: list[Path], names: Mapping[str, tuple[str, ...]], path: Path) -> list[Picture]:
    """The pictures that are there. `names`: of each, and where else below a root it may be."""
    pictures: list[Picture] = []
    missing: list[str] = []
    for name, others in names.items():
        candidates = (root / place for root in roots for place in (name, *others, *_elsewhere(name)))
        found = next((candidate for candidate in candidates if candidate.is_file()), None)
        if found is None:
            missing.append(name)
        else:
            pictures.append(Picture(name, found))
    if missing:
        message = (
            f"{len(missing)} of {len(names)} pictures that {path} names are not in {roots[0]} ({few(missing)}); fetch"
            " them, or say where they are with --images (images=...)"
        )
        if not pictures:
            raise UserError(message)
        warnings.warn(f"{message}; they are left out", DataWarning, stacklevel=3)
    return pictures


def _elsewhere(name: str) -> list[str]:
    """Where a picture that is named by its address, or as on Windows, may be below a root."""
    if "://" in name:
        parts = name.partition("?")[0].split("/")
        return ["/".join(parts[-2:]), parts[-1]]
    return [name.replace("\\", "/")] if "\\" in name else []


def splits(file: str | Path) -> set[str]:
    """The splits that a caption file names: some of "train", "val" and "test"; none where it is not split."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # said when the captions are loaded
        return {row.split for row in rows(Path(file)) if row.split is not None}

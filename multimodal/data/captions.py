"""Pictures with their captions: Karpathy's JSON (Flickr8k, Flickr30k, COCO), JSON lines, and CSV. Knows no labels."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from multimodal.data.pictures import Picture
from multimodal.data.splits import split_name
from retrieval_prompts.data.csv_rows import csv_rows
from retrieval_prompts.data.lines import characters, json_rows, read_lines, string
from retrieval_prompts.errors import DataWarning, UserError, few
from retrieval_prompts.files import read_json

TABLES = (".csv", ".tsv", ".txt")


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


class _Row(NamedTuple):
    where: str
    image: str  # relative to the root
    captions: list[str]
    split: str | None
    flat: str | None = None  # where else the picture may be


def load_captions(file: str | Path, split: str | None = None, *, images: str | Path | None = None) -> Captioned:
    """Read a list of captions; the pictures are not opened, but have to be there.

    Args:
        file: one of
            - .json as Karpathy published it: {"images": [{"filename", "sentences": [{"raw"}], "split"}]}, and maybe
              "filepath";
            - .jsonl with "file" or "image", "captions" (a list) or "caption", and maybe "split" or "flickr8k_split";
            - .csv with the header image,caption[,split].
            In the last two a picture may have several lines. Gzipped .jsonl and .csv are read, too.
        split: only this split; restval is train, dev is val. None: all.
        images: the folder that the names of pictures are relative to; None: the folder of `file`.

    Captions without a word are left out, counted in a DataWarning. Raises UserError with file and line for what is
    malformed, for a split that no picture has, and for pictures that are not there.
    """
    path = Path(file)
    wanted = None if split is None else split_name(split, "captions")
    root = path.parent if images is None else Path(images)
    if not root.is_dir():
        raise UserError(f"{root} is no folder; expected the one that {path} names its pictures in")
    captions: dict[str, list[str]] = {}
    splits: dict[str, str | None] = {}
    flat: dict[str, str | None] = {}
    wordless: list[str] = []
    for row in _rows(path):
        if splits.setdefault(row.image, row.split) != row.split:
            raise UserError(f"{row.where}: {row.image} is in {row.split} here and in {splits[row.image]} above")
        if wanted is not None and row.split != wanted:
            continue
        kept = [characters(caption.strip(), "a caption", row.where) for caption in row.captions if caption.strip()]
        wordless += [row.where] * (len(row.captions) - len(kept))
        if kept:
            captions.setdefault(row.image, []).extend(kept)
            flat[row.image] = row.flat
    if wordless:
        message = f"{path}: {len(wordless)} captions without a word are left out ({few(wordless)})"
        warnings.warn(message, DataWarning, stacklevel=2)
    if not captions and wanted is not None and splits:
        there = ", ".join(sorted({name or "no split at all" for name in splits.values()}))
        raise UserError(f"{path} has no captions of the split {split!r}; it has {there}")
    if not captions:
        raise UserError(f"{path} has no captions")
    pictures = _find(root, {name: flat[name] for name in captions}, path)
    return Captioned(path.name.split(".")[0], pictures, list(captions.values()), wanted)


def _find(root: Path, names: dict[str, str | None], path: Path) -> list[Picture]:
    pictures: list[Picture] = []
    missing: list[str] = []
    for name, flat in names.items():
        candidates = [root / name] if flat is None else [root / name, root / flat]
        found = next((candidate for candidate in candidates if candidate.is_file()), None)
        if found is None:
            missing.append(name)
        else:
            pictures.append(Picture(name, found))
    if missing:
        raise UserError(
            f"{len(missing)} of {len(names)} pictures that {path} names are not in {root}, first {missing[0]};"
            " fetch them, or say where they are with --images (images=...)"
        )
    return pictures


def _rows(path: Path) -> Iterator[_Row]:
    if not path.is_file():
        raise UserError(f"{path} is no file; expected captions as .json (Karpathy's), .jsonl or .csv")
    suffix = _suffix(path)
    if suffix == ".json":
        return _karpathy(path)
    if suffix == ".jsonl":
        return _json_lines(path)
    if suffix in TABLES:
        return _csv(path)
    raise UserError(f"{path}: expected captions as .json (Karpathy's), .jsonl or .csv")


def _suffix(path: Path) -> str:
    return Path(path.name.lower().removesuffix(".gz")).suffix


def _karpathy(path: Path) -> Iterator[_Row]:
    content = read_json(path)
    entries = content.get("images") if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise UserError(f'{path}: expected Karpathy\'s {{"images": [...]}}; one JSON object a line is called .jsonl')
    seen: dict[str, int] = {}
    for number, entry in enumerate(entries):
        where = f"{path}: images[{number}]"
        if not isinstance(entry, dict):
            raise UserError(f"{where}: expected an object, got {type(entry).__name__}")
        name, flat = string(entry, "filename", where, empty=False), None
        if "filepath" in entry:  # COCO's folder, which is often unpacked into one with the others
            name, flat = (Path(string(entry, "filepath", where, empty=False)) / name).as_posix(), name
        if (first := seen.setdefault(name, number)) != number:
            raise UserError(f"{where}: {name} is images[{first}] already")
        sentences = entry.get("sentences")
        if not isinstance(sentences, list) or not all(
            isinstance(sentence, dict) and isinstance(sentence.get("raw"), str) for sentence in sentences
        ):
            raise UserError(f'{where}: expected "sentences": [{{"raw": TEXT}}, ...]')
        captions = [sentence["raw"] for sentence in sentences]
        yield _Row(where, name, captions, _split(entry.get("split"), where), flat)


def _json_lines(path: Path) -> Iterator[_Row]:
    for number, row in json_rows(path):
        where = f"{path}:{number}"
        name = string(row, "image" if "file" not in row and "image" in row else "file", where, empty=False)
        captions = row.get("captions", row.get("caption"))
        if isinstance(captions, str):
            captions = [captions]
        if not isinstance(captions, list) or not all(isinstance(caption, str) for caption in captions):
            raise UserError(f'{where}: expected "captions": [TEXT, ...] or "caption": TEXT, got {captions!r:.40}')
        yield _Row(where, name, captions, _split(row.get("split", row.get("flickr8k_split")), where))


def _csv(path: Path) -> Iterator[_Row]:
    for number, row in csv_rows(path, ("image", "caption"), ("split",)):
        where = f"{path}:{number}"
        if not row["image"]:
            raise UserError(f"{where}: the image is empty")
        yield _Row(where, row["image"], [row["caption"] or ""], _split(row["split"], where))


def _split(given: Any, where: str) -> str | None:
    """None for a picture that is in no split: no value, an empty one, or "none"."""
    return None if given in (None, "", "none") else split_name(str(given), where)


def is_captions(data: str) -> bool:
    """Whether it is a file of captions, by its name and, of a table, its header."""
    path = Path(data)
    if _suffix(path) not in TABLES or not path.is_file():
        return _suffix(path) in (".json", ".jsonl")
    _, header = next(read_lines(path), (1, ""))
    return "caption" in header.lower()


def splits(file: str | Path) -> set[str]:
    """The splits that a caption file names: some of "train", "val" and "test"; none where it is not split."""
    return {row.split for row in _rows(Path(file)) if row.split is not None}

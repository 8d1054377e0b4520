"""Labelled pictures: image folders, CSV lists and named data sets, their splits, and choices of a few a class.

Whatever is chosen by chance is chosen by a hash of the seed and the picture's name: the same on every machine and in
any order of the files, and neither other classes nor more shots change which pictures of a class come first.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import unicodedata
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from multimodal.data.pictures import Picture, extensions, is_picture, left_out, load_pictures, walk
from multimodal.data.splits import SPLITS, Listing, split_name
from retrieval_prompts.data.csv_rows import csv_rows
from retrieval_prompts.data.lines import fields, json_rows, read_lines, string
from retrieval_prompts.errors import DataWarning, UserError, few

__all__ = ["ImageData", "Picture", "Split", "few_shot", "halves", "load_images", "load_pictures", "same_name", "subset"]

HELD_OUT = 0.3  # of each class, where a data set has no test split
TABLES, LINES = (".csv", ".tsv", ".txt"), (".jsonl", ".ndjson")
BESIDE = ("metadata.jsonl", "metadata.csv")  # the list of a Hugging Face image folder
SEPARATORS = ",;\t| "
# What the columns are called, the usual first
IMAGE = ("path", "image", "file_name", "filename", "file", "image_path", "filepath", "file_path", "img", "image name")
LABEL = ("label", "class", "category", "class_name", "target", "labels", "classname")
LAYOUTS = "train/<class>/* with test/<class>/*, or <class>/*"


@dataclass(frozen=True, eq=False)
class Split:
    """Pictures and their classes.

    Args:
        labels: int64 (n,), positions in `classes`.
    """

    pictures: list[Picture]
    labels: NDArray[np.int64]
    classes: tuple[str, ...] = ()

    @classmethod
    def of(cls, rows: Sequence[tuple[Picture, str]], classes: tuple[str, ...]) -> Split:
        """Pictures, each with the name of its class."""
        numbers = {name: number for number, name in enumerate(classes)}
        labels = np.array([numbers[name] for _, name in rows], dtype=np.int64)
        return cls([picture for picture, _ in rows], labels, classes)

    def __len__(self) -> int:
        return len(self.pictures)

    def take(self, positions: Iterable[int]) -> Split:
        """The pictures at these positions, in this order."""
        chosen = np.fromiter(positions, dtype=np.int64)
        return replace(self, pictures=[self.pictures[position] for position in chosen], labels=self.labels[chosen])


@dataclass(frozen=True, eq=False)
class ImageData:
    """A data set.

    Args:
        classes: sorted, as written in the data; a label is a position here.
        splits: some of "train", "val" and "test".
        held_out: the data had no test split, so a share of each class was taken from train for it.
    """

    name: str
    classes: tuple[str, ...]
    splits: dict[str, Split]
    held_out: bool = False

    def split(self, name: str) -> Split:
        """Raises UserError that says which splits there are."""
        if name not in self.splits:
            raise UserError(f"{self.name} has no split {name!r}; it has {', '.join(self.splits)}")
        return self.splits[name]


def load_images(source: str | Path, *, split_seed: int = 0) -> ImageData:
    """Read a list of labelled pictures; the pictures themselves are not opened.

    Args:
        source: one of
            - an image folder: train/<class>/* with test/<class>/* and maybe val/ (or dev/), or <class>/*. A class
              gives its files that end in a picture's extension, and those of the folders in it; others are counted in
              a DataWarning, but hidden ones;
            - a table with the header path,label[,split], or path and label alone on each line; JSON lines with these
              fields, also as metadata.jsonl or .csv of a Hugging Face folder. Columns may be called as people call
              them, image or class; paths are relative to the file's folder;
            - "hf:NAME[@split]", a data set of the Hugging Face hub, or of a local folder that `datasets` reads;
            - "torchvision:NAME", a class of torchvision.datasets, downloaded into the cache folder.
        split_seed: decides which pictures are held out where there is no test split: 30 % of each class, at least
            one where it has two. A val split is the test split where there is no other.

    Raises:
        UserError: for what cannot be trusted: nothing found, one class only, a class without pictures, class names that
            differ by case, underscores or spaces alone, classes that occur outside of train alone, a malformed CSV.
    """
    if str(source).startswith(("hf:", "torchvision:")):
        from multimodal.data import hubs

        kind, _, name = str(source).partition(":")
        listing = hubs.hugging_face(name) if kind == "hf" else hubs.torchvision(name)
        return assemble(str(source), listing, split_seed=split_seed)
    path = Path(source)
    if path.is_dir():
        if (listed := _listed(path)) is not None:
            return assemble(str(source), _table(listed), name=path.resolve().name, split_seed=split_seed)
        return assemble(str(source), _folder(path), name=path.resolve().name, split_seed=split_seed)
    if path.is_file() and path.suffix.lower() in (*TABLES, *LINES):
        return assemble(str(source), _table(path), name=path.stem, split_seed=split_seed)
    came = "is not one of these" if path.exists() else "does not exist"
    raise UserError(
        f"{path} {came}; expected an image folder ({LAYOUTS}), a .csv file (path,label[,split]), hf:NAME or"
        " torchvision:NAME"
    )


def few_shot(split: Split, shots: int | None, seed: int) -> NDArray[np.int64]:
    """Positions of `shots` pictures of each class, ascending; None: of all pictures.

    A class that has fewer gives all it has, named in a DataWarning.

    Raises:
        UserError: for less than one shot.
    """
    if shots is None:
        return np.arange(len(split), dtype=np.int64)
    if shots < 1:
        raise UserError(f"expected at least 1 shot a class, got {shots}")
    chosen: list[int] = []
    short: list[str] = []
    for label, positions in _by_class(split.labels).items():
        if len(positions) < shots:
            short.append(f"{split.classes[label] if split.classes else label} ({len(positions)})")
        chosen += _shuffled(split.pictures, positions, f"shots:{seed}")[:shots]
    if short:
        message = f"fewer than {shots} pictures in {len(short)} of the classes, which give all: {few(short)}"
        warnings.warn(message, DataWarning, stacklevel=2)
    return np.array(sorted(chosen), dtype=np.int64)


def halves(classes: Sequence[str]) -> tuple[list[str], list[str]]:
    """(base, new): the first half of the sorted classes, rounded up, and the others (Zhou et al. 2022, CoCoOp)."""
    ordered = sorted(classes)
    middle = (len(ordered) + 1) // 2
    return ordered[:middle], ordered[middle:]


def subset(data: ImageData, classes: Sequence[str]) -> ImageData:
    """The pictures of these classes alone, with labels 0, 1, ... in the classes' sorted order.

    Raises:
        UserError: for a class that the data does not have.
    """
    if unknown := sorted(set(classes) - set(data.classes)):
        raise UserError(f"{data.name} has no class {few(unknown)}")
    return called(data, {name: name for name in classes})


def called(data: ImageData, names: Mapping[str, str]) -> ImageData:
    """The pictures of the classes that have a name here, with the classes called by it and sorted again."""
    classes = tuple(sorted(names.values()))
    numbers = {name: number for number, name in enumerate(classes)}
    labels = np.array([numbers[names[name]] if name in names else -1 for name in data.classes], dtype=np.int64)
    splits = {}
    for name, split in data.splits.items():
        part = split.take(np.flatnonzero(labels[split.labels] >= 0))
        splits[name] = replace(part, labels=labels[part.labels], classes=classes)
    return replace(data, classes=classes, splits=splits)


def same_name(name: str) -> str:
    """What class names that a text encoder cannot tell apart have in common: no case, no underscores, single spaces."""
    return " ".join(unicodedata.normalize("NFC", name).replace("_", " ").casefold().split())


def assemble(place: str, listing: Listing, *, name: str | None = None, split_seed: int) -> ImageData:
    """Pictures with class names by split -> a checked data set with a test split. See `load_images`.

    Args:
        place: what messages call the data.
    """
    listing = {split: rows for split, rows in listing.items() if rows}
    if not listing:
        raise UserError(f"{place} has no pictures; expected {LAYOUTS}, with files that end in {extensions()}")
    known = {label for _, label in (listing.get("train") or [row for rows in listing.values() for row in rows])}
    for split, rows in listing.items():
        if unknown := sorted({label for _, label in rows} - known):
            raise UserError(f"{place}: {split} has {len(unknown)} classes that train does not have: {few(unknown)}")
    classes = tuple(sorted(known))
    if len(classes) == 1:
        raise UserError(f"{place} has the class {classes[0]!r} only; expected two classes or more")
    alike: dict[str, str] = {}
    for label in classes:
        if (other := alike.setdefault(same_name(label), label)) != label:
            raise UserError(f"{place}: the classes {other!r} and {label!r} have the same name; merge or rename them")
    splits = {split: Split.of(rows, classes) for split, rows in listing.items()}
    held_out = False
    if "test" not in splits and "val" in splits:
        warnings.warn(f"{place} has no test split; its val split is used as one", DataWarning, stacklevel=3)
        splits["test"] = splits.pop("val")
    elif "test" not in splits:
        splits["train"], splits["test"] = _hold_out(splits["train"], split_seed)
        held_out = True
    for split, part in splits.items():
        if missing := sorted(known - {classes[label] for label in np.unique(part.labels)}):
            message = f"{place}: {split} has no pictures of {len(missing)} of {len(classes)} classes: {few(missing)}"
            warnings.warn(message, DataWarning, stacklevel=3)
    return ImageData(name or place, classes, splits, held_out)


def _hold_out(split: Split, seed: int) -> tuple[Split, Split]:
    """(train, test): of each class round(30 %) for test, at least 1 and at most all but 1."""
    held: set[int] = set()
    for positions in _by_class(split.labels).values():
        count = min(max(round(HELD_OUT * len(positions)), 1), len(positions) - 1)
        held.update(_shuffled(split.pictures, positions, f"test:{seed}")[:count])
    if not held:
        raise UserError("no class has a second picture, so none can be held out for test; add pictures")
    everyone = range(len(split))
    return split.take(at for at in everyone if at not in held), split.take(sorted(held))


def _by_class(labels: NDArray[np.int64]) -> Mapping[int, NDArray[np.int64]]:
    order = np.argsort(labels, kind="stable")
    present, starts = np.unique(labels[order], return_index=True)
    return dict(zip(present.tolist(), np.split(order, starts[1:]), strict=True)) if len(labels) else {}


def _shuffled(pictures: Sequence[Picture], positions: NDArray[np.int64], seed: str) -> list[int]:
    def rank(position: int) -> bytes:
        return hashlib.sha256(f"{seed}:{pictures[position].name}".encode("utf-8", "surrogatepass")).digest()

    return sorted(positions.tolist(), key=rank)


def _folder(root: Path) -> Listing:
    folders, pictures = _scan(root)
    # A folder "train" that holds pictures itself is a class: the railway's
    splits = [name for name in folders if name.lower() in SPLITS and _scan(root / name)[0]]
    if not splits and pictures and not folders:
        raise UserError(f"{root} has pictures but no class folders; expected {LAYOUTS}")
    if splits and (other := [name for name in folders if name not in splits]):
        message = f"{root}: not used, as no split has that name or it has no class folders: {few(other)}"
        warnings.warn(message, DataWarning, stacklevel=4)
    found: dict[str, str] = {}  # split -> folder
    for name in splits or ["."]:
        if (first := found.setdefault(SPLITS.get(name.lower(), "train"), name)) != name:
            raise UserError(f"{root}: the folders {first} and {name} are the same split; merge them or remove one")
    reference = "train" if "train" in found else next(iter(found))
    classes = [
        (split, _classes(root / found[split], root, required=split == reference))
        for split in ("train", "val", "test")
        if split in found
    ]
    beside = [(Path(found[split]) / name).as_posix() for split, _ in classes for name in _scan(root / found[split])[1]]
    if others := [name for _, (_, names) in classes for name in names]:
        warnings.warn(left_out(str(root), others), DataWarning, stacklevel=4)
    if beside:
        message = f"{root}: left out {len(beside)} pictures that are in no class folder ({few(beside)})"
        warnings.warn(message, DataWarning, stacklevel=4)
    listing: Listing = {split: rows for split, (rows, _) in classes}
    if "test" in found and not listing["test"] and not listing.get("val"):
        message = f"{root / found['test']} has no pictures; {HELD_OUT:.0%} of each class of train are held out for it"
        warnings.warn(message, DataWarning, stacklevel=4)
    return listing


def _classes(folder: Path, root: Path, *, required: bool) -> tuple[list[tuple[Picture, str]], list[str]]:
    """The pictures of <class>/* in `folder`, and what is no picture there, named relative to `root`.

    Args:
        required: no class may be empty.
    """
    rows: list[tuple[Picture, str]] = []
    others: list[str] = []
    nested = True
    labels = _scan(folder)[0]
    for label in labels:
        count = len(rows)
        for path in walk(folder / label):
            name = path.relative_to(root).as_posix()
            if is_picture(path.name):
                rows.append((Picture(name, path), label))
                nested = nested and path.parent != folder / label
            else:
                others.append(name)
        if required and len(rows) == count:
            raise UserError(f"{folder / label} has no pictures; expected files that end in {extensions()}")
    if rows and nested:
        inner = few(sorted({name for label in labels for name in _scan(folder / label)[0]}))
        message = f"{folder}: all pictures are in folders of folders; {few(labels)} are the classes, not {inner}"
        if len(labels) == 1:
            raise UserError(f"{message}: is {folder / labels[0]} the data's folder itself?")
        warnings.warn(message, DataWarning, stacklevel=5)
    return rows, others


def _scan(folder: Path) -> tuple[list[str], list[str]]:
    """The names of the folders and of the pictures in a folder, sorted, without hidden ones."""
    folders: list[str] = []
    pictures: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                folders.append(entry.name)
            elif is_picture(entry.name):
                pictures.append(entry.name)
    return sorted(folders), sorted(pictures)


def _listed(folder: Path) -> Path | None:
    """The list of labels in a folder of pictures without class folders, as Hugging Face has it."""
    folders, pictures = _scan(folder)
    for file in (folder / name for name in BESIDE):
        if file.is_file() and (pictures or not folders):
            with contextlib.suppress(UserError):  # of captions, perhaps
                next(_labelled(file))
                return file
    return None


def _table(path: Path) -> Listing:
    """Lines of a picture, its class and maybe its split: under a header, or bare; or objects of them, one a line."""
    listing: Listing = {}
    lines: dict[str, int] = {}  # picture -> line
    for number, name, label, split in _labelled(path):
        where = f"{path}:{number}"
        if not (name and label):
            raise UserError(f"{where}: the {'label' if name else 'path'} is empty")
        if (first := lines.setdefault(name, number)) != number:
            raise UserError(f"{where}: {name} was listed on line {first} already; list each picture once")
        file = path.parent / name  # an absolute path stays as it is
        if not file.is_file() and "\\" in name:  # as Windows writes paths
            file = path.parent / name.replace("\\", "/")
        if not file.is_file():
            raise UserError(f"{where}: {file} does not exist; paths are relative to the folder of {path.name}")
        own = "train" if split is None else split_name(split, where)
        listing.setdefault(own, []).append((Picture(name, file), label))
    return listing


def _labelled(path: Path) -> Iterator[tuple[int, str, str, str | None]]:
    """(line, picture, label, split) as the lines have them."""
    if path.suffix.lower() in LINES:
        for number, row in json_rows(path):
            image, label = (next((name for name in known if name in row), known[0]) for known in (IMAGE, LABEL))
            where, split = f"{path}:{number}", row.get("split")
            value = str(row[label]) if type(row.get(label)) is int else string(row, label, where)
            yield number, string(row, image, where), value, None if split is None else str(split)
        return
    _, line = next(read_lines(path), (1, ""))
    for separator in SEPARATORS:
        columns = [name.strip().lower() for name in fields(line, separator)]
        found = [next((name for name in known if name in columns), "") for known in (IMAGE, LABEL)]
        if all(found):
            for number, row in csv_rows(path, found, ("split",)):
                yield number, row[found[0]] or "", row[found[1]] or "", row["split"]
            return
        if len(columns) == 2 and is_picture(fields(line, separator)[0].strip()):
            for number, line in read_lines(path):
                values = [value.strip() for value in fields(line, separator)]
                if len(values) != 2:
                    raise UserError(
                        f"{path}:{number}: expected path{separator}label as on line 1, got {line.strip():.60}"
                    )
                yield number, values[0], values[1], None
            return
    yield from ((number, "", "", None) for number, _ in csv_rows(path, ("path", "label"), ("split",)))  # raises

"""The 11 data sets of CoOp's protocol in their usual folders, with the published splits and draws of shots.

One folder holds them all, as CoOp's DATASETS.md lays them out (Zhou et al. 2022). Classes are in the order of their
labels, whose first half, rounded up, is "base". The published validation splits are not used.
"""

from __future__ import annotations

import random
import warnings
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from multimodal.data.images import ImageData, Split, same_name
from multimodal.data.pictures import Picture, is_picture
from retrieval_prompts.data.lines import read_lines
from retrieval_prompts.errors import DataWarning, UserError, few
from retrieval_prompts.files import read_json

Rows = dict[str, list[tuple[str, int, str]]]  # split -> path below the layout's images, label, class name


@dataclass(frozen=True)
class Layout:
    """The folder of a data set, and in it the folder of the images and the file that lists images or classes."""

    folder: str
    images: str
    listing: str


LAYOUTS = {
    "imagenet": Layout("imagenet", "images", "classnames.txt"),
    "caltech101": Layout("caltech-101", "101_ObjectCategories", "split_zhou_Caltech101.json"),
    "oxford_pets": Layout("oxford_pets", "images", "split_zhou_OxfordPets.json"),
    "stanford_cars": Layout("stanford_cars", ".", "split_zhou_StanfordCars.json"),
    "oxford_flowers": Layout("oxford_flowers", "jpg", "split_zhou_OxfordFlowers.json"),
    "food101": Layout("food-101", "images", "split_zhou_Food101.json"),
    "fgvc_aircraft": Layout("fgvc_aircraft", "images", "variants.txt"),
    "sun397": Layout("sun397", "SUN397", "split_zhou_SUN397.json"),
    "dtd": Layout("dtd", "images", "split_zhou_DescribableTextures.json"),
    "eurosat": Layout("eurosat", "2750", "split_zhou_EuroSAT.json"),
    "ucf101": Layout("ucf101", "UCF-101-midframes", "split_zhou_UCF101.json"),
}


def load_published(name: str, folder: Path) -> ImageData:
    """A data set of LAYOUTS with its train and test split; `folder` holds all data sets.

    Raises:
        UserError: for another name, for what is not there, and for a listing that contradicts itself.
    """
    if name not in LAYOUTS:
        raise UserError(f"there is no data set {name!r}; expected one of {', '.join(LAYOUTS)}")
    layout = LAYOUTS[name]
    root = folder / layout.folder
    listing = root / layout.listing
    if not listing.is_file():
        raise UserError(f"{listing} does not exist; CoOp's DATASETS.md says what to put where for {name}")
    images = root / layout.images
    if name == "imagenet":
        return _assemble(name, images, _imagenet(images, listing), listing)
    rows = _split_file(listing) if listing.suffix == ".json" else _aircraft(root, listing)
    if absent := [path for part in rows.values() for path, _, _ in part if not (images / path).is_file()]:
        raise UserError(f"{len(absent)} pictures of {listing} are not in {images}: {few(absent)}")
    return _assemble(name, images, rows, listing)


def draw(split: Split, shots: int, seed: int) -> NDArray[np.int64]:
    """Positions of `shots` pictures a class, as Dassl's generate_fewshot_dataset draws them after random.seed(seed).

    So they are the pictures of the published experiments where a listing fixes their order: not in ImageNet, whose
    files are sorted here. A class with fewer pictures repeats some of them, as there.
    """
    classes: dict[int, list[int]] = defaultdict(list)  # in the order in which they first occur
    for position, label in enumerate(split.labels.tolist()):
        classes[label].append(position)
    generator = random.Random(seed)
    chosen: list[int] = []
    for positions in classes.values():
        enough = len(positions) >= shots
        chosen += generator.sample(positions, shots) if enough else generator.choices(positions, k=shots)
    return np.array(chosen, dtype=np.int64)


def _split_file(listing: Path) -> Rows:
    """{"train": [[path, label, class name], ...], "val": ..., "test": ...}"""
    content = read_json(listing)
    try:
        return {
            split: [(str(path), int(label), str(name)) for path, label, name in content[split]]
            for split in ("train", "test")
        }
    except (KeyError, TypeError, ValueError):
        message = f'{listing}: expected {{"train": [[path, label, class name], ...], "test": ...}}'
        raise UserError(message) from None


def _aircraft(root: Path, listing: Path) -> Rows:
    """Lines "number variant" in images_variant_train.txt and ..._test.txt; variants.txt gives the labels' order."""
    labels = {variant: label for label, variant in enumerate(_lines(listing))}
    rows: Rows = {}
    for split in ("train", "test"):
        file = root / f"images_variant_{split}.txt"
        pairs = [line.split(" ", 1) for line in _lines(file)]
        if unknown := [" ".join(pair) for pair in pairs if pair[-1] not in labels]:
            raise UserError(f"{file}: expected lines of a number and a variant of {listing.name}, got {few(unknown)}")
        rows[split] = [(f"{number}.jpg", labels[variant], variant) for number, variant in pairs]
    return rows


def _imagenet(images: Path, listing: Path) -> Rows:
    """train/<folder>/*, and val/<folder>/*, which is test; classnames.txt has lines "folder name"."""
    names = {folder: name for folder, _, name in (line.partition(" ") for line in _lines(listing))}
    rows: Rows = {}
    for split, place in (("train", "train"), ("test", "val")):
        parent = images / place
        if not parent.is_dir():
            raise UserError(f"{parent} does not exist; expected a folder of images a class there")
        folders = sorted(path.name for path in parent.iterdir() if path.is_dir())
        if unknown := [folder for folder in folders if folder not in names]:
            raise UserError(f"{listing} has no name for {few(unknown)} of {parent}")
        rows[split] = [
            (f"{place}/{folder}/{file}", label, names[folder])
            for label, folder in enumerate(folders)
            for file in sorted(path.name for path in (parent / folder).iterdir() if is_picture(path.name))
        ]
    return rows


def _assemble(name: str, images: Path, rows: Rows, listing: Path) -> ImageData:
    """Rows -> a data set.

    A name that an earlier label has already (two of ImageNet's) gets a number, said in a DataWarning.

    Raises:
        UserError: unless labels and names fit together.
    """
    names: dict[int, str] = {}
    for part in rows.values():
        for _, label, own in part:
            if names.setdefault(label, own) != own:
                raise UserError(f"{listing}: label {label} is called {names[label]!r} and {own!r}; expected one name")
    if len(names) < 2 or sorted(names) != list(range(len(names))):
        numbers = few(map(str, sorted(names))) or "none"
        raise UserError(f"{listing}: expected the labels 0, 1, ... of two classes or more, got {numbers}")
    times: Counter[str] = Counter()
    classes: list[str] = []
    for _, own in sorted(names.items()):
        times[same_name(own)] += 1
        classes.append(own if times[same_name(own)] == 1 else f"{own} {times[same_name(own)]}")
    if renamed := [new for label, new in enumerate(classes) if new != names[label]]:
        message = f"{name} has classes of one name; the later ones are called {few(renamed)} here"
        warnings.warn(message, DataWarning, stacklevel=3)
    splits = {
        split: Split.of([(Picture(path, images / path), classes[label]) for path, label, _ in part], tuple(classes))
        for split, part in rows.items()
    }
    return ImageData(name, tuple(classes), splits)


def _lines(file: Path) -> list[str]:
    return [line.strip() for _, line in read_lines(file)]

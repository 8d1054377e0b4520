"""Labelled pictures of data sets by name: of the Hugging Face hub and of torchvision. Knows no check of theirs."""

from __future__ import annotations

import inspect
import io
import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from multimodal.data.pictures import Picture
from multimodal.data.splits import SPLITS, Listing, split_name
from retrieval_prompts.errors import DataWarning, UserError, few, first_line
from retrieval_prompts.files import default_cache


def hugging_face(name: str) -> Listing:
    """The pictures of `datasets.load_dataset`: "NAME", or "NAME@split" for one split alone, also "NAME@train[:10%]".

    Labels are the ClassLabel column (the one called label, if there are several), or else any column called label.
    Pictures keep the bytes that the data set holds. Rows whose label is -1 or none are left out, with a DataWarning.

    Raises:
        UserError: when the data set cannot be had or has no such columns.
    """
    try:
        import datasets
    except ImportError:
        raise UserError(f"hf:{name} needs the package datasets; install it: pip install datasets") from None
    path, at, chosen = name.rpartition("@")
    if not at or "/" in chosen:
        path, chosen = name, ""
    try:
        loaded = datasets.load_dataset(path, split=chosen or None)
    except (datasets.exceptions.DatasetsError, OSError, ValueError) as error:
        raise UserError(f"hf:{name} cannot be loaded ({first_line(error)})") from None
    parts = {chosen.partition("[")[0]: loaded} if chosen else dict(loaded)
    listing: Listing = {}
    for given, part in parts.items():
        if given.lower() not in SPLITS and not chosen:
            warnings.warn(f"hf:{name}: the split {given} is not used", DataWarning, stacklevel=3)
            continue
        split = split_name(given, f"hf:{name}")
        image, label = _columns(part.features, f"hf:{name}")
        part = part.select_columns([image, label]).cast_column(image, datasets.Image(decode=False))
        names = getattr(part.features[label], "names", None)
        rows = listing.setdefault(split, [])
        unlabelled = 0
        for row, value in enumerate(part.select_columns([label])[:][label]):
            if value is None or (names and value < 0):
                unlabelled += 1
                continue
            picture = Picture(f"{given}/{row:07d}", partial(_row_bytes, part, image, row))
            rows.append((picture, names[value] if names else str(value)))
        if unlabelled:
            message = f"hf:{name}: {unlabelled} of {len(part)} pictures of {given} have no label and are left out"
            warnings.warn(message, DataWarning, stacklevel=3)
    return listing


def torchvision(name: str) -> Listing:
    """The pictures of the class torchvision.datasets.NAME, downloaded into the folder of caches if they are not there.

    Its splits are those that the class's parameter `split` or `train` has; trainval is train.

    Raises:
        UserError: when there is no such class or it cannot be downloaded.
    """
    from torchvision import datasets

    kind = getattr(datasets, name, None)
    if not (inspect.isclass(kind) and issubclass(kind, datasets.VisionDataset)):
        raise UserError(f"torchvision.datasets has no data set {name!r}; names are written as there, like Caltech101")
    root = default_cache() / "torchvision"
    parameters = inspect.signature(kind).parameters
    given: dict[str, Any] = {"root": str(root), "download": True}
    given = {key: value for key, value in given.items() if key in parameters}
    choices: dict[str, list[dict[str, Any]]]
    if "train" in parameters:
        choices = {"train": [{"train": True}], "test": [{"train": False}]}
    elif "split" in parameters:
        spelled = {"train": ("train", "trainval"), "val": ("val", "valid"), "test": ("test",)}
        choices = {split: [{"split": word} for word in words] for split, words in spelled.items()}
    else:
        choices = {"train": [{}]}
    listing: Listing = {}
    refused = ""
    for split, spellings in choices.items():
        for choice in spellings:
            try:
                part = kind(**given, **choice)
            except ValueError as error:  # it has no split of this name
                refused = first_line(error)
            except (OSError, RuntimeError, TypeError, ImportError) as error:
                raise UserError(f"torchvision:{name} cannot be loaded ({first_line(error)})") from None
            else:
                listing[split] = list(_rows(part, split, root))
                break
    if not listing:
        raise UserError(f"torchvision:{name} cannot be loaded ({refused})")
    return listing


def _columns(features: Any, where: str) -> tuple[str, str]:
    """The names of the columns of pictures and labels."""
    import datasets

    images = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    labels = [name for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    if not images:
        raise UserError(f"{where} has no column of pictures; its columns are {', '.join(features)}")
    if (len(labels) != 1 or "label" in features) and "label" in features:
        labels = ["label"]
    if len(labels) != 1:
        raise UserError(f"{where} has no column of classes, or several; expected one, or label: {few(features)}")
    return "image" if "image" in images else images[0], labels[0]


def _row_bytes(part: Any, column: str, row: int) -> bytes:
    value = part[row][column]
    return value["bytes"] if value["bytes"] is not None else Path(value["path"]).read_bytes()


def _rows(part: Any, split: str, root: Path) -> Iterator[tuple[Picture, str]]:
    """The rows of a torchvision data set. Its classes agree on no attribute: these are the ones in use."""
    classes = getattr(part, "classes", getattr(part, "categories", None))
    files = _attribute(part, ("samples", "_samples", "_image_files", "_images"))
    labels = _attribute(part, ("targets", "_labels", "labels", "y"))
    if labels is None and files is not None and isinstance(files[0], tuple):
        labels = [label for _, label in files]
    elif labels is None:
        labels = [label for _, label in (part[row] for row in range(len(part)))]
    for row, label in enumerate(np.asarray(labels).tolist()):
        file = files[row][0] if files is not None and isinstance(files[row], tuple) else files and files[row]
        if isinstance(file, str | Path):
            path = Path(file)
            name = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()
            picture = Picture(name, path)
        else:
            picture = Picture(f"{split}/{row:07d}", partial(_image_bytes, part, row))
        yield picture, str(classes[label] if classes else label)


def _attribute(part: Any, names: Sequence[str]) -> Any:
    """The first of these attributes that has a value for each picture."""
    values = (getattr(part, name, None) for name in names)
    return next((value for value in values if value is not None and len(value) == len(part) > 0), None)


def _image_bytes(part: Any, row: int) -> bytes:
    """The picture's own file where it was opened from one, else a PNG of it."""
    image = part[row][0]
    if file := getattr(image, "filename", ""):
        return Path(file).read_bytes()
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()

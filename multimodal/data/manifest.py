"""Which pictures a run used, as a JSON file that finds them again in another copy of the data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from multimodal.data.images import ImageData, Split
from multimodal.data.splits import SPLITS
from retrieval_prompts.errors import UserError, few
from retrieval_prompts.files import check_output, read_json, write_json


def write_manifest(path: Path, data: ImageData, *, seed: int, shots: int | None, overwrite: bool = False) -> None:
    """Write the names of all pictures of `data` by split and class, with the seed and the shots they were chosen by.

    Names are relative to the data's root.

    Raises:
        UserError: if `path` exists, unless `overwrite`.
    """
    check_output(path, overwrite=overwrite)
    splits: dict[str, dict[str, list[str]]] = {}
    for name, split in data.splits.items():
        chosen: dict[str, list[str]] = {}
        for picture, label in zip(split.pictures, split.labels, strict=True):
            chosen.setdefault(data.classes[label], []).append(picture.name)
        splits[name] = dict(sorted(chosen.items()))
    content = {"data": data.name, "seed": seed, "shots": shots, "classes": list(data.classes), "splits": splits}
    write_json(path, content)


def apply_manifest(path: Path, data: ImageData) -> ImageData:
    """The pictures of `data` that a manifest lists, in its splits, classes and order.

    A picture is looked for in all splits of `data`, so a manifest also fixes what was held out.

    Raises:
        UserError: for a file that is not a manifest, and for pictures that `data` does not have.
    """
    there = {picture.name: picture for split in data.splits.values() for picture in split.pictures}
    classes, listed = _read(path)
    names = [name for chosen in listed.values() for files in chosen.values() for name in files]
    if missing := [name for name in names if name not in there]:
        raise UserError(
            f"{data.name} lacks {len(missing)} of the {len(names)} pictures that {path} lists: {few(missing)}"
        )
    splits: dict[str, Split] = {}
    for split, chosen in listed.items():
        rows = [(there[name], label) for label, files in chosen.items() for name in files]
        splits[split] = Split.of(rows, classes)
    return ImageData(data.name, classes, splits, data.held_out)


def _read(path: Path) -> tuple[tuple[str, ...], dict[str, dict[str, list[str]]]]:
    content: Any = read_json(path)
    keys = ("data", "seed", "shots", "classes", "splits")
    if not (isinstance(content, dict) and all(key in content for key in keys)):
        raise UserError(f"{path} is not a manifest; expected a JSON object with {', '.join(keys)}")
    classes, splits = content["classes"], content["splits"]
    whole = (
        isinstance(classes, list)
        and all(isinstance(name, str) for name in classes)
        and isinstance(splits, dict)
        and all(isinstance(chosen, dict) for chosen in splits.values())
        and all(isinstance(files, list) for chosen in splits.values() for files in chosen.values())
        and all(isinstance(name, str) for chosen in splits.values() for files in chosen.values() for name in files)
    )
    if not whole:
        raise UserError(f'{path}: expected "classes": [NAME, ...] and "splits": {{SPLIT: {{CLASS: [PICTURE, ...]}}}}')
    if wrong := [name for name in splits if name not in SPLITS.values()]:
        raise UserError(f"{path}: expected the splits train, val and test, got {few(wrong)}")
    if wrong := [name for chosen in splits.values() for name in chosen if name not in classes]:
        raise UserError(f"{path}: not among its classes: {few(wrong)}")
    return tuple(classes), splits

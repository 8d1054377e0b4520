"""Pictures and labels as people have them in Python: paths, PIL images, arrays, tensors, bytes; names and numbers."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from multimodal.data.pictures import Picture, rgb
from retrieval_prompts.errors import UserError

KINDS = "paths, PIL images, bytes of picture files, or arrays and tensors of pixels"


def as_pictures(pictures: Iterable[Any]) -> list[Picture]:
    """Raises UserError for a single picture, a path that is no file, and what is no picture."""
    if isinstance(pictures, str | Path):
        raise UserError(f"expected a list of images, got the single path {pictures}; write [path]")
    if isinstance(pictures, bytes | Image.Image | Picture):
        raise UserError("expected a list of images, got a single one; write [image]")
    return [_picture(item, number) for number, item in enumerate(pictures)]


def _picture(item: Any, number: int) -> Picture:
    if isinstance(item, Picture):
        return item
    if isinstance(item, str | Path):
        path = Path(item)
        if not path.is_file():
            raise UserError(f"{path} is not a file; expected a picture")
        return Picture(path.as_posix(), path)
    if isinstance(item, dict) and (item.get("bytes") or item.get("path")):  # of `datasets`, not decoded
        return _picture(item.get("bytes") or item["path"], number)
    if isinstance(item, bytes | bytearray):
        return _from(bytes(item), number)
    if isinstance(item, Image.Image):
        return _from(_png(rgb(ImageOps.exif_transpose(item))), number)
    if hasattr(item, "__array__"):
        return _from(_png(_pixels(item, number)), number)
    raise UserError(f"expected {KINDS}, got {type(item).__name__} at position {number}")


def _from(content: bytes, number: int) -> Picture:
    """Its name has its content, so that a picture which is met again is the same one."""
    return Picture(f"image {number} ({hashlib.sha256(content).hexdigest()[:12]})", lambda: content)


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _pixels(item: Any, number: int) -> Image.Image:
    """(H, W), (H, W, C), or (C, H, W) as torch has them; whole numbers to 255, or fractions from 0 to 1."""
    tensor = type(item).__module__.startswith("torch")
    values = np.asarray(item.detach().cpu() if tensor else item)
    shape = values.shape
    if values.ndim == 3 and shape[0] in (1, 3, 4) and (tensor or shape[2] not in (1, 3, 4)):
        values = values.transpose(1, 2, 0)
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[:, :, 0]
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[2] not in (3, 4)) or not values.size:
        raise UserError(f"expected pixels (H, W, 3) or (3, H, W) at position {number}, got the shape {shape}")
    if values.dtype.kind == "f":
        if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
            raise UserError(
                f"expected pixels from 0 to 1 at position {number}, got {values.min():g} to {values.max():g}; "
                "give pictures as they are, not preprocessed"
            )
        values = (values * 255).round()
    elif values.min() < 0 or values.max() > 255:
        raise UserError(f"expected pixels from 0 to 255 at position {number}, got {values.min()} to {values.max()}")
    return rgb(Image.fromarray(values.astype(np.uint8)))


def as_names(classes: Sequence[str]) -> tuple[str, ...]:
    """Raises UserError for a single string, which is a list of letters to Python."""
    if isinstance(classes, str):
        raise UserError(f"expected a list of names as classes, got the single string {classes!r}; write [{classes!r}]")
    return tuple(map(str, classes))


def label_numbers(labels: Sequence[Any] | NDArray, names: tuple[str, ...], count: int) -> NDArray[np.int64]:
    """(n,) each label's position in the names: whole numbers as `label_values` says, all else by name.

    Raises:
        UserError: for labels of another number, or of no class.
    """
    given = label_list(labels)
    if len(given) != count:
        raise UserError(f"expected one label for each image, got {count} images and {len(given)} labels")
    values = label_values(labels, names) or names
    numbers = {str(value): number for number, value in enumerate(values)}
    unknown = [label for label in given if str(label) not in numbers]
    if unknown:
        raise UserError(f"the label {str(unknown[0])!r} is not one of the {len(names)} classes")
    return np.array([numbers[str(label)] for label in given], dtype=np.int64)


def label_list(labels: Sequence[Any] | NDArray) -> list[Any]:
    """Raises UserError for what is no list of labels, one for each image."""
    values = np.asarray(labels)
    if values.ndim != 1:
        raise UserError(f"expected a list of labels, one for each image, got the shape {values.shape}")
    return list(values.tolist())


def whole(labels: Sequence[Any] | NDArray) -> list[int] | None:
    """Labels that are whole numbers, as a list of them; else None."""
    values = np.asarray(labels)
    return [int(value) for value in values.tolist()] if values.ndim == 1 and values.dtype.kind in "iu" else None


def label_values(labels: Sequence[Any] | NDArray, names: tuple[str, ...]) -> tuple[int, ...]:
    """What predictions are to be where labels are whole numbers: (C,) of them; empty where labels are names."""
    found = whole(labels)
    if found is None:
        return ()
    named = all(name.lstrip("-").isdecimal() for name in names) and {str(label) for label in found} <= set(names)
    return tuple(map(int, names)) if named else tuple(range(len(names)))

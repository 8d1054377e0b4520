"""Small pictures that tell where they came from: a color for each number, as files in the usual layouts."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from multimodal.data.images import Split

RED, WHITE = (255, 0, 0), (255, 255, 255)


def color(number: int) -> tuple[int, int, int]:
    return (number * 37 % 256, number * 91 % 256, number * 151 % 256)


def noise(number: int, size: tuple[int, int] = (24, 20)) -> Image.Image:
    """A picture of random pixels, different for each number."""
    width, height = size
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8))


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def write(path: Path, number: int = 0) -> Path:
    """A PNG of `noise(number)`, whatever the name ends in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(noise(number)))
    return path


def image_folder(root: Path, counts: Mapping[str, int]) -> Path:
    """counts: "train/cat" or "cat" -> how many pictures 0.png, 1.png, ... it gets, all different."""
    number = 0
    for folder, count in counts.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            write(root / folder / f"{index}.png", number)
            number += 1
    return root


def names(split: Split) -> list[str]:
    return [picture.name for picture in split.pictures]


def pairs(split: Split) -> list[tuple[str, str]]:
    return [
        (picture.name, split.classes[label])
        for picture, label in zip(split.pictures, split.labels.tolist(), strict=True)
    ]

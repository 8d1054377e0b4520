"""Soft prompts for a frozen CLIP: classify with a few images a class, search images with words.

Everything named here is loaded on first use, so that importing the package is light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multimodal.classifier import PromptClassifier
    from multimodal.data.captions import load_captions
    from multimodal.data.images import load_images
    from multimodal.towers.clip import load_clip
    from multimodal.training.settings import Settings
    from multimodal.vectors.features import image_features

__all__ = ["PromptClassifier", "Settings", "image_features", "load_captions", "load_clip", "load_images"]

_HOMES = {
    "PromptClassifier": "classifier",
    "Settings": "training.settings",
    "image_features": "vectors.features",
    "load_captions": "data.captions",
    "load_clip": "towers.clip",
    "load_images": "data.images",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

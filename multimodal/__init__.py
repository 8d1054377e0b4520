"""Soft prompts for a frozen CLIP: classify with a few images a class, search images with words.

Everything named here is loaded on first use, so that importing the package is light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multimodal.captions import load_captions
    from multimodal.classifier import PromptClassifier
    from multimodal.clip import load_clip
    from multimodal.features import image_features
    from multimodal.images import load_images
    from multimodal.settings import Settings

__all__ = ["PromptClassifier", "Settings", "image_features", "load_captions", "load_clip", "load_images"]

_HOMES = {
    "PromptClassifier": "classifier",
    "Settings": "settings",
    "image_features": "features",
    "load_captions": "captions",
    "load_clip": "clip",
    "load_images": "images",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

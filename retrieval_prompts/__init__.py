"""Soft prompts for frozen retrievers: a few learned vectors steer a frozen bi-encoder to a domain.

Everything named here is loaded on first use, so that importing the package is light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retrieval_prompts.biencoder import BiEncoder
    from retrieval_prompts.data import Dataset, load, load_corpus
    from retrieval_prompts.errors import DataWarning, UserError
    from retrieval_prompts.experiment import tune
    from retrieval_prompts.index import Index
    from retrieval_prompts.settings import TuneSettings

__version__ = "0.1.0"
__all__ = [
    "BiEncoder",
    "DataWarning",
    "Dataset",
    "Index",
    "TuneSettings",
    "UserError",
    "load",
    "load_corpus",
    "tune",
]

_HOMES = {
    "BiEncoder": "biencoder",
    "DataWarning": "errors",
    "Dataset": "data",
    "Index": "index",
    "TuneSettings": "settings",
    "UserError": "errors",
    "load": "data",
    "load_corpus": "data",
    "tune": "experiment",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

"""Soft prompts for frozen retrievers: a few learned vectors steer a frozen bi-encoder to a domain.

Everything named here is loaded on first use, so that importing the package is light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retrieval_prompts.biencoder import BiEncoder
    from retrieval_prompts.data.beir_folder import Dataset, load, load_corpus
    from retrieval_prompts.data.from_python import from_texts
    from retrieval_prompts.errors import DataWarning, UserError
    from retrieval_prompts.evaluation.hybrid import HybridIndex
    from retrieval_prompts.experiments.retrieval import tune
    from retrieval_prompts.interop.adopt import adopt
    from retrieval_prompts.interop.text_classifier import PromptTextClassifier
    from retrieval_prompts.training.settings import TuneSettings
    from retrieval_prompts.vectors.index import Index

__version__ = "0.1.0"
__all__ = [
    "BiEncoder",
    "DataWarning",
    "Dataset",
    "HybridIndex",
    "Index",
    "PromptTextClassifier",
    "TuneSettings",
    "UserError",
    "adopt",
    "from_texts",
    "load",
    "load_corpus",
    "tune",
]

_HOMES = {
    "BiEncoder": "biencoder",
    "DataWarning": "errors",
    "Dataset": "data.beir_folder",
    "HybridIndex": "evaluation.hybrid",
    "Index": "vectors.index",
    "PromptTextClassifier": "interop.text_classifier",
    "TuneSettings": "training.settings",
    "UserError": "errors",
    "adopt": "interop.adopt",
    "from_texts": "data.from_python",
    "load": "data.beir_folder",
    "load_corpus": "data.beir_folder",
    "tune": "experiments.retrieval",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

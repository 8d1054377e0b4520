"""Classify texts with a soft prompt on a frozen retriever, in scikit-learn's manner: fit, predict, predict_proba.

A text is a query, and the name of its label a document, so that no example is needed; with a few, a prompt on the query
side is trained, and a linear head beside the names. Which of them is used is decided on held-out training examples.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.data.plain_texts import as_texts
from retrieval_prompts.errors import UserError, few
from retrieval_prompts.prompts.settings import spoken
from retrieval_prompts.towers.text import DEFAULT_MODEL, TextTower, load_tower
from retrieval_prompts.training.tasks.settings import LabelSettings
from retrieval_prompts.training.tasks.two_parts import SHARES, Examples, TwoParts, fit_two_parts, names_alone

Floats = NDArray[np.float64]


class PromptTextClassifier(ClassifierMixin, BaseEstimator):
    """A classifier of texts over a frozen bi-encoder. Each of its clones uses the same frozen model.

    Args:
        model: a name, a folder, a hub id or a loaded `TextTower`; None: all-MiniLM-L6-v2.
        names: label -> the words that stand for it, such as {"pos": "a favourable review"}; what is not named is called
            as it is, with spaces for underscores.
        head: "names" compares with the names alone, "linear" is a logistic regression on the vectors, "auto" mixes
            both in the shares that do best on held-out training examples.
        kind: of the prompt, "prefix" or "input".
        length: its vectors; None: the default of its kind.
        max_steps: of training the prompt; 0: none, and the frozen model.
        learning_rate: of the prompt; None: the default of its kind.
        random_state: of the prompt's first vectors, the batches and the folds: a number, or a numpy RandomState.

    Attributes:
        classes_: the labels, sorted.
        choice_: what "auto" has taken and why, in a sentence.
        two_parts_: what was learned.

    Example:
        >>> classifier = PromptTextClassifier().fit(texts, labels)  # doctest: +SKIP
        >>> classifier.predict(["It broke after a day."])  # doctest: +SKIP
        array(['negative'], dtype='<U8')
    """

    def __init__(
        self,
        model: str | Path | TextTower | None = None,
        names: Mapping[Any, str] | None = None,
        head: str = "auto",
        kind: str = "prefix",
        length: int | None = None,
        max_steps: int = 40,
        learning_rate: float | None = None,
        random_state: Any = 0,
    ) -> None:
        self.model, self.names, self.head = model, names, head
        self.kind, self.length = kind, length
        self.max_steps, self.learning_rate, self.random_state = max_steps, learning_rate, random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.one_d_array, tags.input_tags.string = False, True, True
        return tags

    # ---- training

    def fit(self, X: Iterable[str], y: Iterable[Any]) -> Self:
        """Train on labelled texts.

        Args:
            X: texts.
            y: their labels: strings, numbers, anything that scikit-learn takes for classes.

        Raises:
            UserError: for what is no text, with its position, for another number of labels, fewer than two classes, and
                settings out of range.
        """
        from sklearn.utils.multiclass import check_classification_targets

        texts, labels = as_texts(X), np.asarray(y if hasattr(y, "__len__") else list(y))
        if labels.ndim != 1 or len(labels) != len(texts):
            shape = len(labels) if labels.ndim == 1 else labels.shape
            raise UserError(f"expected one label for each text, got {len(texts)} texts and labels of shape {shape}")
        check_classification_targets(labels)
        classes, numbers = np.unique(labels, return_inverse=True)
        if len(classes) < 2:
            found = few(map(str, classes)) or "none"
            raise UserError(f"expected texts of at least two classes, got {found}; predict without examples: zero_shot")
        settings, tower = self._settings(), _tower(self.model)
        documents = _documents(tower, self._names(classes))
        self.two_parts_ = fit_two_parts(Examples(tower, texts, numbers, documents, settings, self.head))
        self.classes_, self.choice_ = classes, self.two_parts_.choice
        return self

    def zero_shot(self, labels: Iterable[Any]) -> Self:
        """Predict these labels by their names alone, without an example.

        Raises:
            UserError: for fewer than two.
        """
        classes = np.unique(np.asarray(list(labels)))
        if len(classes) < 2:
            raise UserError(f"expected at least two labels, got {few(map(str, classes)) or 'none'}")
        tower = _tower(self.model)
        self.two_parts_ = names_alone(tower, _documents(tower, self._names(classes)))
        self.classes_, self.choice_ = classes, self.two_parts_.choice
        return self

    # ---- prediction

    def predict_proba(self, X: Iterable[str]) -> Floats:
        """(n, C) probabilities, in the order of `classes_`.

        Raises:
            UserError: for what is no text, with its position.
        """
        check_is_fitted(self, "two_parts_")
        return self.two_parts_.probabilities(as_texts(X))

    def predict(self, X: Iterable[str]) -> NDArray:
        """(n,) labels."""
        check_is_fitted(self, "two_parts_")
        found: NDArray = self.classes_[self.predict_proba(X).argmax(axis=1)]
        return found

    # ---- folders

    def save(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Write what was learned as a folder of safetensors and JSON; the frozen model is not in it.

        Raises:
            UserError: when it exists, unless `overwrite`, and for labels that are neither texts nor numbers.
        """
        from retrieval_prompts.prompts.label_folder import save_labels

        check_is_fitted(self, "two_parts_")
        given = {name: value for name, value in self.get_params().items() if name not in ("model", "names")}
        given = {name: value.item() if isinstance(value, np.generic) else value for name, value in given.items()}
        if not isinstance(given["random_state"], int):
            given["random_state"] = None
        saved = self.two_parts_.saved(self.classes_.tolist(), self._names(self.classes_), {"settings": given})
        save_labels(folder, saved, overwrite=overwrite)

    @classmethod
    def load(cls, folder: str | Path, model: str | Path | TextTower | None = None) -> PromptTextClassifier:
        """Read a folder that `save` has written.

        Args:
            model: the frozen model, where it has moved; None: the one that the folder names.

        Raises:
            UserError: for another model than the one that it was trained on, and for a damaged folder.
        """
        from retrieval_prompts.prompts.label_folder import load_labels

        saved = load_labels(folder)
        tower = _tower(model if model is not None else saved.base["name"])
        known = saved.training.get("settings", {})
        made = cls(model if model is not None else tower, dict(zip(saved.classes, saved.names, strict=True)))
        made.set_params(**{name: known[name] for name in known.keys() & made.get_params().keys()})
        made.classes_, made.two_parts_ = np.asarray(saved.classes), TwoParts.of(tower, saved, str(folder))
        made.choice_ = made.two_parts_.choice
        return made

    def _settings(self) -> LabelSettings:
        from sklearn.utils import check_random_state

        if self.head not in SHARES:
            raise UserError(f"head must be {spoken(list(SHARES))}, got {self.head!r}")
        seed = self.random_state
        if not isinstance(seed, int | np.integer):
            seed = check_random_state(seed).randint(2**31 - 1)
        given = {"kind": self.kind, "length": self.length, "learning_rate": self.learning_rate}
        return LabelSettings.of(**given, max_steps=self.max_steps, seed=int(seed))

    def _names(self, classes: NDArray) -> list[str]:
        """What each label is called.

        Raises:
            UserError: for names of labels that are not there.
        """
        given = {str(label): str(name) for label, name in (self.names or {}).items()}
        labels = [str(label) for label in classes]
        if unknown := [label for label in given if label not in labels]:
            raise UserError(f"names are given for labels that no text has: {few(unknown)}")
        return [given.get(label, label.replace("_", " ")) for label in labels]


def _documents(tower: TextTower, names: list[str]) -> torch.Tensor:
    """(C, dimension) the frozen vectors of the names of labels."""
    return torch.from_numpy(tower.comparable(BiEncoder(tower).encode_document(names)))


def _tower(model: str | Path | TextTower | None) -> TextTower:
    if isinstance(model, TextTower):
        return model
    if model is not None and not isinstance(model, str | Path):
        raise UserError(f"expected the name of a model or a TextTower, got {type(model).__name__}")
    return _loaded(None if model is None else str(model))


@lru_cache(maxsize=1)
def _loaded(model: str | None) -> TextTower:
    """A model is frozen, so clones in a search over settings share it."""
    return load_tower(DEFAULT_MODEL if model is None else model)

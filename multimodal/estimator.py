"""What scikit-learn asks of a classifier beside fit, predict and score: its settings, clones, tags, classes."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from multimodal.towers.clip import Clip, load_clip
from retrieval_prompts.prompts.settings import Values, check_read


class Estimator:
    """The settings as they were given: what is None is the default of the method, which may still change."""

    clip: Clip
    settings: Any
    classes: tuple[str, ...]
    labels: tuple[int, ...]
    _given: dict[str, Any]

    def use_settings(self, settings: Values, given: dict[str, Any] | None) -> None:
        """Take settings. `given`: those that were given by name; None: they were given as they are.

        Raises:
            UserError: for a setting that was given by name and that the others leave unread.
        """
        if given is None:
            kind = {settings.KIND: getattr(settings, settings.KIND)}
            usual = asdict(type(settings).of(**kind))
            given = kind | {name: value for name, value in asdict(settings).items() if value != usual[name]}
            self.settings, self._given = settings, given
            return
        plain = {each.name: each.default for each in fields(settings)}
        asked = [name for name, value in given.items() if value is not None and value != plain[name]]
        check_read(settings, asked, data="labelled pictures")
        self.settings, self._given = settings, given

    @property
    def asked(self) -> Any:
        """The settings as they were given, before a `fit` chose what was left to it."""
        return type(self.settings).of(**self._given)

    def asked_with(self, method: str) -> Any:
        """The settings that were given, of this method."""
        return type(self.settings).of(**{**self._given, "method": method})

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The model, and every setting as it was given."""
        plain = {each.name: each.default for each in fields(self.settings)}
        return {"clip": self.clip, **plain, **self._given}

    def set_params(self, **params: Any) -> Self:
        """Other settings for the next `fit`.

        Raises:
            UserError: for a name that is none.
        """
        clip = params.pop("clip", self.clip)
        given = {**self._given, **params}
        self.use_settings(type(self.settings).of(**given), given)
        self.clip = clip if isinstance(clip, Clip) else load_clip(clip)
        return self

    def __sklearn_is_fitted__(self) -> bool:
        """What `Pipeline` and `check_is_fitted` ask: there is a prompt."""
        return getattr(self, "_method", None) is not None

    def __sklearn_clone__(self) -> Self:
        """Unfitted, on the same model: it is frozen, so it is shared."""
        return type(self)(self.clip, **self._given)  # type: ignore[call-arg]

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import ClassifierTags, InputTags, Tags, TargetTags

        kinds = {"classifier_tags": ClassifierTags(), "input_tags": InputTags(two_d_array=False)}
        return Tags("classifier", TargetTags(required=True), **kinds)

    @property
    def classes_(self) -> NDArray:
        """(C,) of what `predict` gives, in the order of the probabilities."""
        return np.array(self.labels or self.classes)

"""Prompts over one index of pictures, as they are served: each is checked against its model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from multimodal.classifier import PromptClassifier
from multimodal.evaluation.feedback import ask
from multimodal.towers.clip import Clip
from multimodal.vectors.image_index import ImageIndex, check_prompts
from multimodal.vectors.texts import Texts
from retrieval_prompts.errors import UserError
from retrieval_prompts.serving.by_name import Shelf


@dataclass(frozen=True, eq=False)
class Loaded:
    """Prompts as they are served; see `by_name.Named`.

    Args:
        no_search: why words cannot be searched with them; empty where they can.
    """

    name: str
    folder: str
    classifier: PromptClassifier
    no_search: str = ""

    @property
    def strength(self) -> float:
        return self.classifier.strength


class PictureShelf(Shelf[Loaded]):
    """Prompts over pictures by name.

    Args:
        index: of pictures, and `clip`, which made it.
        given, root: see `Shelf`.

    Raises:
        UserError: for an index whose pictures have prompts in the image tower.
    """

    def __init__(
        self, index: ImageIndex, clip: Clip, given: Mapping[str, Path] | None = None, root: Path | None = None
    ) -> None:
        check_prompts(index, None)
        self.index, self.clip = index, clip
        super().__init__(given or {}, root)

    def made(self, name: str, folder: str, place: Path) -> Loaded:
        """See `Shelf.made`."""
        found = PromptClassifier.load(place, self.clip)
        return Loaded(name, folder, found, _no_search(found, self.index))


@torch.no_grad()
def _no_search(classifier: PromptClassifier, index: ImageIndex) -> str:
    try:
        prompter, _ = classifier.search_prompts()
        ask(Texts(classifier.clip, ["a"]), prompter, 1.0, index)
    except UserError as error:
        return str(error)
    return ""

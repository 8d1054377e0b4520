"""The frozen CLIP that a student learns from. Of it a student needs the class vectors alone: those of its training are
kept, and the model is loaded only where others, or its images, are asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from multimodal.data.templates import fill
from multimodal.towers.clip import Clip, load_clip, reload_clip
from retrieval_prompts.errors import UserError, few

if TYPE_CHECKING:
    from multimodal.prompts.folder import Saved


class Teacher:
    """A frozen CLIP's class vectors, each name in a hand-written template.

    Args:
        base: "name", "pretrained", "fingerprint" and "dimension" of the model.
        template: that names are written into.
        names, texts: classes that are known without the model, and their vectors (n, dimension).
        device: of the vectors, and of the model where it is loaded.
        place: where the model is now, if it has moved.
    """

    def __init__(
        self,
        base: Mapping[str, Any],
        template: str,
        names: Sequence[str] = (),
        texts: Tensor | None = None,
        *,
        device: torch.device | None = None,
        place: str | None = None,
    ) -> None:
        self.base, self.template, self.place = dict(base), template, place
        self.device = device or torch.device("cpu")
        self.dimension = int(base["dimension"])
        rows = torch.zeros(0, self.dimension) if texts is None else texts
        if rows.shape != (len(names), self.dimension):
            raise RuntimeError(f"class vectors {tuple(rows.shape)} of {len(names)} classes of {self.dimension}")
        self._known = dict(zip(names, rows.to(self.device), strict=True))

    @classmethod
    def of(cls, saved: Saved, template: str, device: torch.device, place: str | None) -> Teacher | None:
        """That of a prompt folder, if it has one."""
        if saved.teacher is None:
            return None
        return cls(saved.teacher, template, saved.classes, saved.texts, device=device, place=place)

    @classmethod
    def load(cls, model: str, pretrained: str | None, template: str, device: torch.device) -> Teacher:
        """The model at hand.

        Raises:
            UserError: when there is no such model.
        """
        with torch.random.fork_rng(devices=[]):  # open_clip draws weights before it reads them
            clip = load_clip(model, pretrained, device=str(device))
        base = {"name": clip.name, "pretrained": clip.pretrained, "fingerprint": clip.fingerprint}
        teacher = cls({**base, "dimension": clip.dimension}, template, device=device)
        teacher.clip = clip
        return teacher

    def about(self, classes: Sequence[str]) -> dict[str, Any]:
        """What a prompt folder holds of it; see `folder.Saved`."""
        return {"teacher": self.base, "texts": self.vectors(classes) if classes else None}

    @cached_property
    def clip(self) -> Clip:
        """The model, of the very weights that were learned from. Raises UserError."""
        name = self.base["name"]
        weights = None if self.place else self.base["pretrained"]
        with torch.random.fork_rng(devices=[]):
            clip = reload_clip(self.place or name, weights, device=str(self.device))
        if clip.fingerprint != self.base["fingerprint"]:
            raise UserError(
                f"expected the teacher {name}, got {clip.name} with other weights; give --teacher that model"
            )
        return clip

    def vectors(self, names: Sequence[str]) -> Tensor:
        """(C, dimension) of unit length; new names are read by the teacher's text tower.

        Raises:
            UserError: where there are new names, and the teacher is not there.
        """
        if new := [name for name in dict.fromkeys(names) if name not in self._known]:
            try:
                clip = self.clip
            except UserError as error:
                raise UserError(
                    f"{len(new)} classes are new to this student, and its teacher, which reads them, is not there "
                    f"({few(new)}): {error}"
                ) from error
            found = clip.encode_texts([fill(self.template, name) for name in new])
            self._known.update(zip(new, found, strict=True))
        return torch.stack([self._known[name] for name in names])

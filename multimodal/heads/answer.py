"""Head and prompt as one answer: known classes by the head, new ones by the prompt's texts, on one scale.

Which of both groups a picture belongs to is said by the frozen texts of all the classes and by how sure the head is;
within each group its own system decides. A list of known classes alone is the head's, one of new classes the prompt's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from multimodal.data.images import same_name
from multimodal.heads.head import Head
from retrieval_prompts.errors import UserError

BLOCK = 1024  # pictures at once: bounds the kernels
PLAIN = (1.0, 0.0, 0.0)


@dataclass(frozen=True)
class Answer:
    """A fitted head and what it takes to answer beside a prompt.

    Args:
        name: of the head; one of HEADS.
        classes: that it knows, in the order of its logits.
        head: calibrated: its softmax are probabilities.
        temperature: of the frozen texts' logits, where they say which group.
        gate: (texts, head, constant): the log-odds of the known group are texts * (L(known texts) - L(new texts)) +
            head * (L(head) - L(new texts)) + constant; L: log-sum-exp.
        why: how it was chosen, a line.
    """

    name: str
    classes: tuple[str, ...]
    head: Head
    temperature: float = 1.0
    gate: tuple[float, float, float] = PLAIN
    why: str = ""

    @property
    def about(self) -> dict[str, Any]:
        """What a folder says of it, as JSON values, beside the tensors of the head."""
        return {
            "name": self.name,
            "classes": list(self.classes),
            "beta": self.head.beta,
            "temperature": self.temperature,
            "gate": list(self.gate),
            "why": self.why,
        }

    @classmethod
    def of(cls, folder: Path | str, about: Mapping[str, Any], tensors: Mapping[str, Tensor], dimension: int) -> Answer:
        """The inverse of `about`.

        Raises:
            UserError: that names the folder for what is missing or does not fit.
        """
        try:
            head = Head.of(tensors, float(about["beta"]))
            texts, own, constant = map(float, about["gate"])
            classes, temperature = tuple(map(str, about["classes"])), float(about["temperature"])
            made = cls(str(about["name"]), classes, head, temperature, (texts, own, constant), str(about["why"]))
            sizes, expected = tuple(head.weight.shape), (len(classes), dimension)
            numbers = [head.beta, temperature, *made.gate]
            if sizes != expected or not all(map(math.isfinite, numbers)) or temperature <= 0 or head.beta < 0:
                raise ValueError(f"expected a head of {expected}, got {sizes}, {numbers}")
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{folder}: its head lacks a part, or is damaged ({error}); train it again") from error
        return made

    def positions(self, names: Sequence[str]) -> Tensor:
        """(C,) of the names among its classes; -1 for a new one. Spelt as `same_name` allows."""
        known = {same_name(name): number for number, name in enumerate(self.classes)}
        return torch.tensor([known.get(same_name(name), -1) for name in names])

    def knows(self, names: Sequence[str]) -> bool:
        """Whether any of the names is one of its classes."""
        return bool((self.positions(names) >= 0).any())

    def knows_all(self, names: Sequence[str]) -> bool:
        """Whether it answers for all of the names, and the prompt for none."""
        return bool((self.positions(names) >= 0).all())

    def logits(self, features: Tensor) -> Tensor:
        """Frozen features (n, D) of unit length -> (n, its classes), calibrated, in float32."""
        parts = [self.head.logits(part) for part in features.float().split(BLOCK)]
        return torch.cat(parts) if parts else torch.zeros(0, len(self.classes))

    def mixed(self, names: Sequence[str], own: Tensor, frozen: Tensor, prompted: Tensor | None) -> Tensor:
        """(n, C): logits of one softmax over the names.

        Args:
            own: (n, its classes), of `logits`, or of what takes their place.
            frozen: (n, C), of the frozen texts.
            prompted: (n, C), of the prompt, calibrated; None where all names are known.
        """
        positions = self.positions(names).to(own.device)
        known = positions >= 0
        own = own[:, positions[known]]
        if prompted is None or known.all():
            return own
        within, new = F.log_softmax(own, dim=1), F.log_softmax(prompted[:, ~known], dim=1)
        odds = self.odds(own, frozen[:, known] / self.temperature, frozen[:, ~known] / self.temperature)
        found = torch.empty_like(prompted)
        found[:, known] = F.logsigmoid(odds)[:, None] + within
        found[:, ~known] = F.logsigmoid(-odds)[:, None] + new
        return found

    def odds(self, own: Tensor, known: Tensor, new: Tensor) -> Tensor:
        """(n,): the log-odds that a picture shows a known class."""
        texts, head, constant = self.gate
        return torch.stack(evidence(own, known, new)).T @ own.new_tensor([texts, head]) + constant


def evidence(own: Tensor, known: Tensor, new: Tensor) -> tuple[Tensor, Tensor]:
    """(n,), (n,): what texts and head say for the known group; from logits of the head, and of both groups' texts."""
    others = torch.logsumexp(new, dim=1)
    return torch.logsumexp(known, dim=1) - others, torch.logsumexp(own, dim=1) - others

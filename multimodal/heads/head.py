"""What every head is once it is fitted, a linear map and kernels around shots, and what it is fitted on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Shots:
    """What a head is fitted on; every class has a shot.

    Args:
        features: (n, D) of unit length, by the frozen image tower.
        labels: (n,) numbers below C.
        text: (C, D) of unit length: the classes' text vectors.
        scale: of the model: its logits are scale * cosines.
    """

    features: Tensor
    labels: Tensor
    text: Tensor
    scale: float

    @classmethod
    def of(cls, features: Tensor, labels: Tensor, text: Tensor, scale: float) -> Shots:
        """In float64: closed forms invert matrices."""
        return cls(features.double(), labels.long(), text.double(), scale)

    def single(self) -> Shots:
        """In float32: many steps of a descent need speed, not digits."""
        return Shots(self.features.float(), self.labels, self.text.float(), self.scale)

    @property
    def logits(self) -> Tensor:
        """(n, C) of the texts alone."""
        return self.scale * self.features @ self.text.T

    @property
    def one_hot(self) -> Tensor:
        """(n, C)"""
        return F.one_hot(self.labels, len(self.text)).to(self.features)

    @property
    def counts(self) -> Tensor:
        """(C,) shots of each class."""
        return torch.bincount(self.labels, minlength=len(self.text))

    @property
    def means(self) -> Tensor:
        """(C, D) of the features of each class."""
        return self.one_hot.T @ self.features / self.counts[:, None]


@dataclass(frozen=True)
class Head:
    """logits(x) = weight x + bias + exp(-beta (1 - keys x)) values, of features x of unit length.

    Args:
        weight: (C, D).
        bias: (C,).
        keys: (S, D); none in a head that is linear.
        values: (S, C).
        beta: how fast the kernel falls.
    """

    weight: Tensor
    bias: Tensor
    keys: Tensor
    values: Tensor
    beta: float = 0.0

    @classmethod
    def linear(cls, weight: Tensor, bias: Tensor | None = None) -> Head:
        C, D = weight.shape
        return cls(
            weight, weight.new_zeros(C) if bias is None else bias, weight.new_zeros(0, D), weight.new_zeros(0, C)
        )

    @classmethod
    def around(cls, weight: Tensor, keys: Tensor, values: Tensor, beta: float) -> Head:
        """A linear map without a bias, and kernels around the keys."""
        return cls(weight, weight.new_zeros(len(weight)), keys, values, beta)

    @property
    def is_linear(self) -> bool:
        return not len(self.keys)

    def logits(self, features: Tensor) -> Tensor:
        """(n, D) -> (n, C), in the features' precision."""
        x = features
        found = x @ self.weight.to(x).T + self.bias.to(x)
        return found if self.is_linear else found + kernel(x, self.keys.to(x), self.beta) @ self.values.to(x)

    def divided(self, temperature: float) -> Head:
        """The head whose logits are these, divided by the temperature."""
        return replace(
            self, weight=self.weight / temperature, bias=self.bias / temperature, values=self.values / temperature
        )

    def as_saved(self) -> Head:
        """As a file gives it back, so that a head answers the same before and after, to the last bit."""
        return Head.of({name: tensor.float().contiguous() for name, tensor in self.tensors.items()}, self.beta)

    def of_classes(self, columns: Tensor) -> Head:
        """The head for some of its classes, by number and in that order."""
        return replace(self, weight=self.weight[columns], bias=self.bias[columns], values=self.values[:, columns])

    @property
    def tensors(self) -> dict[str, Tensor]:
        return {"weight": self.weight, "bias": self.bias, **({} if self.is_linear else self._kernels)}

    @property
    def _kernels(self) -> dict[str, Tensor]:
        return {"keys": self.keys, "values": self.values}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], beta: float) -> Head:
        """The inverse of `tensors`.

        Raises:
            KeyError: for one that is missing, ValueError for shapes that do not fit.
        """
        made = cls.linear(tensors["weight"], tensors["bias"])
        if "keys" in tensors:
            made = replace(made, keys=tensors["keys"], values=tensors["values"], beta=beta)
        C, D = made.weight.shape
        if made.bias.shape != (C,) or made.keys.shape[1:] != (D,) or made.values.shape != (len(made.keys), C):
            raise ValueError(f"a head of {C} classes whose parts have other sizes")
        return made


def kernel(features: Tensor, keys: Tensor, beta: float) -> Tensor:
    """(n, S): exp(-beta (1 - cosine)), 1 where they are the same (Zhang et al. 2022, equation 3)."""
    return torch.exp(-beta * (1 - features @ keys.T))

"""Prompt encoders: the only thing that is trained. They make vectors of shape (layers, length, width).

A prompt encoder knows nothing about the model that reads its vectors: an input prompt has one layer of the width of
the embedding table; a prefix has one layer for each layer of the model, and a width of keys and values side by side.
Every encoder starts exactly at its initial vectors and collapses to plain vectors when it is saved.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import RLock

import torch
from torch import Tensor, nn

from retrieval_prompts.towers.fingerprint import digest

# Held while prompts change, and while they are read as a whole: what another thread encodes is of one state of them
CHANGING = RLock()
SIDES = ("query", "document")
KINDS = ("input", "prefix")


class PromptTable(nn.Module):
    """The vectors themselves are the parameters (Lester et al. 2021)."""

    def __init__(self, initial: Tensor) -> None:
        super().__init__()
        self.vectors = nn.Parameter(initial.clone())  # (layers, length, width)

    def forward(self) -> Tensor:
        return self.vectors


class PromptMLP(nn.Module):
    """Vectors reparameterised by a two-layer perceptron (Li and Liang 2021, section 4.3), as a residual.

    vectors = initial + W2 tanh(W1 e), with one embedding e a position; W2 starts at zero, so training starts at
    `initial`.
    """

    def __init__(self, initial: Tensor, hidden: int = 256) -> None:
        super().__init__()
        layers, length, width = initial.shape
        self.vectors = nn.Parameter(initial.clone())
        self.positions = nn.Parameter(torch.randn(length, hidden))
        self.hidden = nn.Linear(hidden, hidden)
        self.output = _zero_linear(hidden, layers * width)

    def forward(self) -> Tensor:
        delta = self.output(torch.tanh(self.hidden(self.positions)))  # (length, layers * width)
        return self.vectors + _unfold(delta, self.vectors)


class PromptLSTM(nn.Module):
    """Vectors reparameterised by a bidirectional LSTM and a perceptron (P-tuning, Liu et al. 2021), as a residual."""

    def __init__(self, initial: Tensor, hidden: int = 128) -> None:
        super().__init__()
        layers, length, width = initial.shape
        self.vectors = nn.Parameter(initial.clone())
        self.positions = nn.Parameter(torch.randn(length, hidden))
        self.lstm = nn.LSTM(hidden, hidden, bidirectional=True)
        self.output = _zero_linear(2 * hidden, layers * width)

    def forward(self) -> Tensor:
        states, _ = self.lstm(self.positions)  # (length, 2 * hidden)
        return self.vectors + _unfold(self.output(torch.tanh(states)), self.vectors)


class PromptSum(nn.Module):
    """A side's own vectors plus a part common to both sides (Semi-Siamese, Jung et al. 2022).

    Both parts have one shape. `common` is one module given to the sums of both sides.
    """

    def __init__(self, own: nn.Module, common: nn.Module) -> None:
        super().__init__()
        self.own = own
        self.common = common

    def forward(self) -> Tensor:
        return self.own() + self.common()


ENCODERS: dict[str, Callable[[Tensor], nn.Module]] = {
    "table": PromptTable,
    "mlp": PromptMLP,
    "lstm": PromptLSTM,
}


def fingerprint(kind: str, vectors: Tensor) -> str:
    """SHA-256 of a prompt's kind, shape and float32 vectors, as 64 hexadecimal digits."""
    return digest({kind: vectors.to(torch.float32)}, types=False)


def _zero_linear(inputs: int, outputs: int) -> nn.Linear:
    linear = nn.Linear(inputs, outputs)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


def _unfold(delta: Tensor, like: Tensor) -> Tensor:
    layers, length, width = like.shape
    return delta.view(length, layers, width).transpose(0, 1)

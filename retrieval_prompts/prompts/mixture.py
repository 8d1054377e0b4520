"""A mixture of prompts, weighed anew for each query by how much it is like what each prompt was tuned on.

    w = softmax([0, (cos(q, k_1) - f_1) / T, ..., (cos(q, k_n) - f_n) / T]),   prompt = sum of w_j P_j / sum of w_j

with q the query's frozen vector, k_j the direction of the mean of prompt j's training queries, and f_j its floor: the
likeness below which hardly any of those queries is. The first candidate is the frozen model, whose score is what a
query at every floor has; the vector then stands at strength 1 - w_0 between the frozen and the prompted one. In the
manner of ATTEMPT (Asai et al. 2022, arXiv 2205.11961), which learns the weights; these are made without training.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from retrieval_prompts.errors import UserError

LEAST = 0.01  # of the largest weight: less is none, so that most queries have exactly one prompt, or the frozen model
TEMPERATURE = 0.1
COLDEST, HOTTEST = 1e-4, 1e4  # temperatures at which float32 still tells likenesses apart
FLOOR = 0.05  # the part of a prompt's training queries that is less like their mean than its floor
UNWEIGHED = (
    "these prompts are weighed anew for each query by its frozen vector; encode queries with BiEncoder.encode_query"
)


@dataclass(frozen=True)
class Mixture:
    """What a mixture has beside its prompts.

    Args:
        keys: (prompts, dimension), of length 1.
        floors: of each prompt's likeness.
        weights: what each prompt's weight is multiplied with, as against the frozen model's; 0 leaves it out.
        strengths: at which each prompt is used.
        temperature: of the softmax, in cosines.
    """

    keys: Tensor
    floors: tuple[float, ...]
    weights: tuple[float, ...]
    strengths: tuple[float, ...]
    temperature: float = TEMPERATURE


class MixturePrompt(nn.Module):
    """Prompts (prompts, layers, length, width) of one kind and shape, and how they are weighed. Nothing is trained."""

    vectors: Tensor
    keys: Tensor

    def __init__(self, vectors: Tensor, about: Mixture) -> None:
        super().__init__()
        self.register_buffer("vectors", vectors.clone())
        self.register_buffer("keys", about.keys.clone())
        self.about = about

    @property
    def shape(self) -> tuple[int, int, int]:
        """(layers, length, width) of a query's prompt."""
        _, layers, length, width = self.vectors.shape
        return layers, length, width

    def weights(self, frozen: Tensor) -> Tensor:
        """Frozen vectors of queries (queries, dimension) -> weights (queries, 1 + prompts), the frozen model's first;
        they add up to 1."""
        likeness = nn.functional.normalize(frozen.float(), dim=1) @ self.keys.T
        scores = (likeness - likeness.new_tensor(self.about.floors)) / self.about.temperature
        scores = scores + likeness.new_tensor(self.about.weights).log()
        weights = torch.cat([scores.new_zeros(len(scores), 1), scores], dim=1).softmax(dim=1)
        weights = weights.where(weights >= LEAST * weights.amax(dim=1, keepdim=True), 0.0)
        return weights / weights.sum(dim=1, keepdim=True)

    def forward(self, frozen: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Frozen vectors of queries -> prompts (queries, layers, length, width), and how much each counts (queries,),
        from 0 for the frozen model.

        Raises:
            UserError: without vectors.
        """
        if frozen is None:
            raise UserError(UNWEIGHED)
        counts = self.weights(frozen)[:, 1:] * self.keys.new_tensor(self.about.strengths)
        share = counts.sum(dim=1)
        parts = counts / share.where(share > 0, 1.0)[:, None]
        return torch.einsum("qn,nlpw->qlpw", parts, self.vectors), share

    def flat(self) -> Tensor:
        """All prompts, one behind the other, (layers, prompts * length, width): as they are kept."""
        return self.vectors.transpose(0, 1).flatten(1, 2)

    @classmethod
    def of(cls, flat: Tensor, about: Mixture) -> MixturePrompt:
        """What was kept.

        Raises:
            UserError: for numbers that do not belong together.
        """
        count, (layers, length, width) = len(about.keys), flat.shape
        if not count or length % count or {len(about.floors), len(about.weights), len(about.strengths)} != {count}:
            raise UserError(f"expected {count} prompts of one length, a key, a floor and a weight each, got {length}")
        return cls(flat.view(layers, count, length // count, width).transpose(0, 1), about)

"""Feedback for CLIP: a query, words or a picture, reads what a first search with the frozen model finds for it.

    query = unit(q + f(q) + sum over r of gate_r * g(d_r)),    f, g: x -> x @ map + bias

with q its frozen feature, and d_r that of the picture, or caption, at rank r. Words that ask for pictures have f and g
of their own, pictures that ask for captions others. Both are the feedback prompts of texts (see
`retrieval_prompts.prompts.feedback`), added behind the tower, so that no tower runs twice. Their maps start at zero,
which is the frozen model. What is found is never prompted: features and indexes stay as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal.data.captions import WAYS
from multimodal.prompts.methods import Method
from multimodal.prompts.objectives import cross_entropy
from retrieval_prompts.errors import UserError
from retrieval_prompts.prompts.feedback import FeedbackPrompt, Start

if TYPE_CHECKING:
    from multimodal.prompts.settings import PromptSettings
    from multimodal.towers.clip import Clip

NEEDS_INDEX = (
    "feedback prompts are made for each query from what a search of an index finds, and here there is none: they serve "
    "`multimodal-prompts search` and `serve`, and evaluate on captions; prompts of coop need no index"
)
NEEDS_CAPTIONS = (
    "--method feedback learns how words and pictures find each other: give captions; for labelled pictures use coop"
)


class Feedback(nn.Module):
    """What queries of both ways read.

    Args:
        dimension: of the features.
        found: how many of those that a first search finds are read; 0: the query's own feature alone.
    """

    def __init__(self, dimension: int, found: int) -> None:
        super().__init__()
        self.found = found
        self.own = nn.ModuleDict({way: _prompt(dimension, 1) for way in WAYS})
        self.read = nn.ModuleDict({way: _prompt(dimension, found) for way in WAYS if found})

    def forward(self, *_: Any) -> Tensor:
        """A prompt that is made of class names or words alone: there is none. Raises UserError."""
        raise UserError(NEEDS_INDEX)

    def asked(self, way: str, queries: Tensor, found: Tensor) -> Tensor:
        """Frozen queries (n, D), and what they found (n, found, D), best first -> queries (n, D) of unit length."""
        made = self.own[way](queries[:, None]).sum(dim=(1, 2))
        if self.found:
            made = made + self.read[way](found).sum(dim=(1, 2))
        return F.normalize(queries + made.float(), dim=-1)


def build(clip: Clip, settings: PromptSettings, classes: int | None = None) -> Method:
    """See `methods.MethodFile`. The loss is that of training on captions.

    Raises:
        UserError: for classes.
    """
    if classes is not None:
        raise UserError(NEEDS_CAPTIONS)
    return Method(Feedback(clip.dimension, settings.feedback).to(clip.device), cross_entropy)


def _prompt(dimension: int, read: int) -> FeedbackPrompt:
    start = Start(torch.zeros(dimension, dimension), torch.zeros(dimension))
    made = FeedbackPrompt(torch.zeros(1, 1, dimension), start, torch.full((read,), 1 / read), bm25_weight=0.0)
    for name in ("start_map", "start_bias"):  # zeros, which are not worth keeping
        made.register_buffer(name, getattr(made, name), persistent=False)
    return made

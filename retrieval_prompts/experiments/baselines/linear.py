"""A linear map on frozen query vectors, W q + b, that starts at the identity; the cheapest adapter there is.

What LlamaIndex calls a linear adapter. The documents and their index stay, and no text is encoded while it trains.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from retrieval_prompts.experiments.baselines.task import Retriever, Task, train
from retrieval_prompts.towers.text import Floats
from retrieval_prompts.training.settings import TuneSettings

LEARNING_RATE = 5e-4


def fit(
    task: Task, *, bias: bool = False, learning_rate: float = LEARNING_RATE, settings: TuneSettings | None = None
) -> Retriever:
    """Train W (dimension, dimension), and with `bias` b (dimension,).

    Where no dev score beats the frozen model's, W is the identity: the record says "used": False.

    Args:
        settings: loss and loop, as `tune` has them; its learning rate and seed give way to those given here.

    Raises:
        UserError: when there is no query to train on, or training diverges.
    """
    settings = dataclasses.replace(settings or TuneSettings(), learning_rate=learning_rate, seed=task.seed)
    tower = task.biencoder.tower
    adapter = nn.Linear(tower.dimension, tower.dimension, bias=bias)
    with torch.no_grad():
        adapter.weight.copy_(torch.eye(tower.dimension))
        if bias:
            adapter.bias.zero_()
    adapter.to(tower.device)

    def adapted(vectors: Floats) -> Tensor:
        moved = adapter(torch.from_numpy(vectors).to(tower.device))
        return nn.functional.normalize(moved, dim=1) if tower.similarity == "cosine" else moved

    known: dict[str, Floats] = {}  # of large training sets, the loop sees only a part

    def embed(texts: list[str]) -> Tensor:
        new = [text for text in dict.fromkeys(texts) if text not in known]
        known.update(zip(new, task.frozen(new), strict=True))
        return adapted(np.stack([known[text] for text in texts]))

    record = train(task, adapter, embed, settings, name="linear")
    record["settings"]["bias"] = bias

    @torch.no_grad()
    def encode(texts: Sequence[str]) -> Floats:
        vectors = task.frozen(texts)
        return adapted(vectors).cpu().numpy() if record["used"] else vectors

    return Retriever(task.index, encode, record)

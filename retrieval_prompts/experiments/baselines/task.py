"""What every baseline is trained on, what it gives back, and the loop that those with a gradient share.

The loss, the batches, the loop and the choice by dev are those of `training.retrieval`, so that a baseline differs from
a soft prompt in what is trained and in nothing else. Knows no baseline.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.data.judgements import Run
from retrieval_prompts.errors import UserError
from retrieval_prompts.evaluation.metrics import HEADLINE, means, per_query
from retrieval_prompts.towers.text import Floats
from retrieval_prompts.training import retrieval
from retrieval_prompts.training.loop import fit
from retrieval_prompts.training.settings import TuneSettings
from retrieval_prompts.training.task import Positions
from retrieval_prompts.training.training_data import TrainingData
from retrieval_prompts.vectors.blocks import VectorBlocks
from retrieval_prompts.vectors.index import Index

# The settings of `tune` that are not about prompts
LOOP = ("epochs", "max_steps", "learning_rate", "warmup", "weight_decay", "clip", "patience", "batch_size")
LOSS = ("temperature", "negatives", "symmetric", "memory", "precision", "seed")


@dataclass(frozen=True)
class Task:
    """All that a baseline is trained on.

    Args:
        biencoder: the frozen one, without prompts.
        documents: the frozen vectors of the corpus, comparable by inner product.
        index: over `documents`, of whatever factory; dev is scored with it.
        seed: of all that is drawn.

    Raises:
        UserError: when the bi-encoder has a prompt.
    """

    biencoder: BiEncoder
    data: TrainingData
    documents: VectorBlocks
    index: Index
    seed: int = 0

    def __post_init__(self) -> None:
        if self.biencoder.prompts:
            raise UserError("a baseline starts from the frozen model; got one with prompts: use BiEncoder(tower)")

    @cached_property
    def dev_texts(self) -> list[str]:
        return [self.data.queries[query] for query in self.data.dev]

    def frozen(self, texts: Sequence[str]) -> Floats:
        """Queries -> the frozen model's vectors (queries, dimension), ready to be compared."""
        return self.biencoder.query_vectors(list(texts))


@dataclass(frozen=True)
class Retriever:
    """A baseline that was fitted: an index, and what makes query vectors (queries, dimension) of texts.

    record: "settings", "train_queries", "dev_queries", "dev" (metric, frozen, tuned), "used" (whether dev was better
    with it; without, it is the frozen model), "parameters" (numbers that were learned), "documents_changed",
    "seconds".
    """

    index: Index
    encode: Callable[[Sequence[str]], Floats]
    record: dict[str, Any]

    def run(
        self, queries: Mapping[str, str], k: int, *, nprobe: int | None = None, ef_search: int | None = None
    ) -> Run:
        """The k best documents of each query (id -> text), without the one of the query's own id; fewer where the
        index finds fewer. nprobe, ef_search: see `Index.search`."""
        vectors = self.encode(list(queries.values()))
        return self.index.rank(list(queries), vectors, k, nprobe=nprobe, ef_search=ef_search)


def dev_mean(task: Task, run: Run) -> float:
    """nDCG@10 of the dev queries, in [0, 1]."""
    return means(per_query(task.data.dev, run, [HEADLINE]))[HEADLINE]


def train(
    task: Task,
    module: nn.Module,
    embed: Callable[[list[str]], Tensor],
    settings: TuneSettings,
    *,
    name: str,
) -> dict[str, Any]:
    """Train what makes query vectors against the frozen documents; returns the record (see `Retriever`).

    Args:
        module: holds what is trained; afterwards with the weights of the best dev score, the initial ones included.
        embed: texts of queries -> vectors (texts, dimension), with gradients to `module`.
        name: what the progress bar says.

    Raises:
        UserError: when there is no query to train on, or training diverges.
    """
    start = time.perf_counter()
    training = QueryTraining(task, settings, embed)
    plan = training.plan(False)

    def score() -> float:
        with torch.no_grad():
            vectors = embed(task.dev_texts).float().cpu().numpy()
        return dev_mean(task, task.index.rank(list(task.data.dev), vectors, 10))

    loop = replace(plan.loop, advice="try a smaller learning rate")
    steps = fit(module, plan.batches, training.loss(False), score, loop)
    for _ in tqdm(steps, f"train {name}", plan.epochs * plan.steps + 1, unit="step", delay=1, leave=False):
        pass
    frozen = dev_mean(task, task.index.rank(list(task.data.dev), task.frozen(task.dev_texts), 10))
    tuned = score()
    given = asdict(settings)
    return {
        "settings": {key: given[key] for key in (*LOOP, *LOSS)} | {"temperature": training.temperature},
        "train_queries": len(training.texts),
        "dev_queries": len(task.data.dev),
        "dev": {"metric": HEADLINE, "frozen": frozen, "tuned": tuned},
        "used": tuned > frozen,
        "parameters": sum(parameter.numel() for parameter in module.parameters()),
        "documents_changed": 0,
        "seconds": round(time.perf_counter() - start, 2),
    }


class QueryTraining(retrieval.Task):
    """The task of `training.retrieval`, with the query vectors made by `embed`; None: nothing but the frozen model."""

    def __init__(self, task: Task, settings: TuneSettings, embed: Callable[[list[str]], Tensor] | None = None) -> None:
        if not task.data.dev:
            raise UserError("a baseline needs at least one dev query with a relevant document")
        super().__init__(task.biencoder, task.data, settings, task.documents, task.index)
        self.embed = embed

    def query_vectors(self, positions: Positions) -> Tensor:
        if self.embed is None:
            return super().query_vectors(positions)
        return self.embed([self.texts[position] for position in positions])

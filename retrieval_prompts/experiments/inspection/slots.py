"""Feedback prompts: which of the documents that a first search found moved a query, and how."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from retrieval_prompts.experiments.inspection.effects import Without
from retrieval_prompts.experiments.inspection.null import Beside
from retrieval_prompts.experiments.inspection.trial import Scores, Trial, turned
from retrieval_prompts.towers.text import Floats

SHUFFLES = 999  # of what is relevant, over the queries


@dataclass(frozen=True)
class Slot:
    """A document that a query's prompt read.

    Args:
        moved: how far the query turns (1 - cosine) when the document is left out.
        gained: what nDCG@10 loses then: above 0, the document helped.
    """

    rank: int
    id: str
    title: str
    relevant: bool
    moved: float
    gained: float


@dataclass(frozen=True)
class Slots:
    """All queries' documents.

    Args:
        relevant: how much further relevant documents move a query than others of the same rank, beside the same where
            the relevance of all documents of a query is exchanged with that of another; None where one of both is
            missing.
        share: of the documents that were read, how many are relevant.
        queries: query -> its documents, of the queries that were asked for.
    """

    relevant: Beside | None
    share: float
    queries: dict[str, list[Slot]]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def slots_of(trial: Trial, whole: Floats, scores: Scores, without: Without, wanted: list[str]) -> Slots:
    """What each document did: see `Slots`. `wanted`: queries of which the documents are named."""
    corpus, static = trial.bench.dataset.corpus, trial.static
    index = trial.index
    moved = np.stack([turned(whole, each) for each in without.vectors[static:]], axis=1)  # (queries, documents)
    ids = [[corpus.stands_for(index.ids[at]) or index.ids[at] for at in row] for row in trial.found.tolist()]
    right = np.array(
        [[trial.qrels[query].get(id, 0) > 0 for id in row] for query, row in zip(trial.ids, ids, strict=True)]
    )
    named: dict[str, list[Slot]] = {}
    places = {query: at for at, query in enumerate(trial.ids)}
    for query in wanted:
        at = places[query]
        named[query] = [
            Slot(
                rank + 1,
                ids[at][rank],
                _title(trial, ids[at][rank]),
                bool(right[at, rank]),
                float(moved[at, rank]),
                scores[query] - without.scores[static + rank][query],
            )
            for rank in range(moved.shape[1])
        ]
    before = None if without.before is None else without.before[:, static:]
    return Slots(_relevant(moved, right, before), float(right.mean()), named)


def _relevant(moved: np.ndarray, right: np.ndarray, before: np.ndarray | None) -> Beside | None:
    usable = [rank for rank in range(moved.shape[1]) if 0 < right[:, rank].sum() < len(right)]
    if not usable:
        return None

    def gap(of: np.ndarray, moved: np.ndarray = moved) -> float:
        """Over the ranks, each weighted by its relevant documents."""
        gaps = [moved[of[:, at], at].mean() - moved[~of[:, at], at].mean() for at in usable]
        return float(np.average(gaps, weights=right[:, usable].sum(axis=0)))

    draw = np.random.default_rng(0)
    # Queries as a whole: how far one turns, and how many of its documents are relevant, goes together over the ranks
    first = None if before is None else gap(right, before)
    return Beside.of(gap(right), [gap(draw.permutation(right)) for _ in range(SHUFFLES)], first)


def _title(trial: Trial, id: str) -> str:
    corpus = trial.bench.dataset.corpus
    document = corpus[corpus.position(id)]
    return document.title or document.text

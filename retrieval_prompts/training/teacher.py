"""A ranking that training follows where nothing is judged: probabilities of a few documents for each query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from retrieval_prompts.training.training_data import TrainingData

SHARPNESS = 0.05  # temperature of the softmax over scores from 0 to 1


def probabilities(scores: Mapping[str, float], temperature: float = SHARPNESS) -> dict[str, float]:
    """The softmax over the scores of a query's documents."""
    values = np.array(list(scores.values()), dtype=np.float64) / temperature
    raised = np.exp(values - values.max())
    return dict(zip(scores, (raised / raised.sum()).tolist(), strict=True))


class Taught:
    """What a teacher says of each training query.

    Args:
        positions: of its documents in the corpus, a query an array (n,).
        shares: their probabilities (n,).
        corpus: how many documents there are.
    """

    def __init__(
        self, positions: Sequence[NDArray[np.int64]], shares: Sequence[NDArray[np.float32]], corpus: int
    ) -> None:
        self.positions, self.shares, self.corpus = positions, shares, corpus

    @classmethod
    def of(cls, data: TrainingData, queries: Sequence[str]) -> Taught:
        """What the data's teacher says of these queries, in their order."""
        said = [data.teacher[query] for query in queries]
        positions = [np.array([data.corpus.position(doc) for doc in each], dtype=np.int64) for each in said]
        shares = [np.array(list(each.values()), dtype=np.float32) for each in said]
        return cls(positions, shares, len(data.corpus))

    def probabilities(self, queries: NDArray[np.int64], candidates: NDArray[np.int64] | None) -> NDArray[np.float32]:
        """(queries, candidates) probabilities, of all documents when None; those of documents that are no candidates
        are left out, and the rest sums to 1 again.

        Args:
            candidates: positions in the corpus, ascending.
        """
        found = np.zeros((len(queries), self.corpus if candidates is None else len(candidates)), dtype=np.float32)
        for row, query in zip(found, queries, strict=True):
            positions, shares = self.positions[query], self.shares[query]
            if candidates is not None:
                places = np.searchsorted(candidates, positions)
                there = np.flatnonzero(np.isin(positions, candidates))
                positions, shares = places[there], shares[there]
            row[positions] = shares / max(float(shares.sum()), 1e-12)
        return found

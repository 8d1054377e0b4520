"""How far two prompts over one frozen model are apart on the queries of a data set: vectors, rankings, scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.evaluation.metrics import HEADLINE, means, per_query
from retrieval_prompts.evaluation.significance import Comparison, compare
from retrieval_prompts.evaluation.words import paired_sentence
from retrieval_prompts.experiments.workbench import Workbench
from retrieval_prompts.towers.text import unit_length

SHARED = 10  # documents of a ranking


@dataclass(frozen=True)
class Difference:
    """Prompts A and B on the queries of a split.

    Args:
        cosine, lowest_cosine: of the two vectors of a query, the mean and the lowest.
        shared: documents among the first ten that both rankings have, the mean.
        same_first: the part of the queries whose first document is the same.
        values: nDCG@10 of A and B.
        test: of B against A.
    """

    dataset: str
    split: str
    queries: int
    cosine: float
    lowest_cosine: float
    shared: float
    same_first: float
    values: tuple[float, float]
    test: Comparison

    def to_json(self) -> dict[str, Any]:
        """Every field; the test as `Comparison.as_dict` has it."""
        return vars(self) | {"test": self.test.as_dict()}

    def sentences(self, a: str, b: str) -> list[str]:
        """For people, with what A and B are called."""
        return [
            f"{self.dataset}, {self.queries:,} {self.split} queries: cosine of a query's two vectors {self.cosine:.3f} "
            f"(lowest {self.lowest_cosine:.3f}); {self.shared:.1f} of the first {SHARED} documents are the same, the "
            f"first one for {100 * self.same_first:.0f} % of the queries",
            paired_sentence(b, a, self.test, values=self.values[::-1]),
        ]


def difference(a: BiEncoder, b: BiEncoder, bench: Workbench, split: str) -> Difference:
    """Both rank the documents, each as it encodes them.

    Raises:
        UserError: when the data have no such split.
    """
    queries, qrels = bench.dataset.split(split)
    vectors = [bench.query_vectors(each, queries.values()) for each in (a, b)]
    runs = [bench.index_for(each).rank(list(queries), own, SHARED) for each, own in zip((a, b), vectors, strict=True)]
    cosines = (unit_length(vectors[0]) * unit_length(vectors[1])).sum(axis=1)
    pairs = [(list(runs[0][query]), list(runs[1][query])) for query in queries]
    scores = [per_query(qrels, run, [HEADLINE]) for run in runs]
    left, right = (means(each)[HEADLINE] for each in scores)
    return Difference(
        bench.dataset.name,
        split,
        len(queries),
        float(cosines.mean()),
        float(cosines.min()),
        float(np.mean([len({*one} & {*other}) for one, other in pairs])),
        float(np.mean([one[:1] == other[:1] for one, other in pairs])),
        (left, right),
        compare(scores[0][HEADLINE], scores[1][HEADLINE], HEADLINE),
    )

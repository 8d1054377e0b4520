"""Dense scores and BM25 in one ranking: a convex combination, each normalised for its query.

score = (1 - weight) * dense + weight * lexical, where
    dense    0 at the 100th best document of the query and 1 at the best
    lexical  BM25 / the BM25 that no document can exceed with the words of the query
so a query's score does not depend on other queries, and a weight means the same for models whose similarities are
all near 0.8, for inner products, and for frozen and prompted queries. Bruch, Gai and Ingber 2022, "An Analysis of
Fusion Functions for Hybrid Retrieval", find convex combinations better than reciprocal ranks, and the theoretical
bounds of a score a good norm. Dividing by the best score that was reached instead gives weak matches full weight, and
loses up to 15 points where words say little (eval/README.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrieval_prompts.data.corpus import Document
from retrieval_prompts.data.groups import best_passages
from retrieval_prompts.data.judgements import Run
from retrieval_prompts.errors import UserError
from retrieval_prompts.evaluation.bm25 import BM25Index, best_positions
from retrieval_prompts.files import unreplaced
from retrieval_prompts.vectors.index import Index

WORDS = "bm25"  # the folder in an index folder
DEPTH = 100  # documents that each of the two rankings brings, at least; the last dense one is the 0 of its scale
CHUNKS = 8  # candidates a document that is looked for, where documents are in chunks
WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9)  # of BM25, that judged queries choose from
UNLABELLED = 0.75  # where nothing is judged: on no collection tried worse than the dense ranking (eval/README.md)


@dataclass(frozen=True)
class Candidates:
    """What both rankings bring for one query; every document has both scores.

    Args:
        positions: of the documents in the index (n,).
        dense, lexical: their normalised scores (n,).
    """

    positions: NDArray[np.int64]
    dense: NDArray[np.float64]
    lexical: NDArray[np.float64]

    def best(self, weight: float, k: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """(positions, scores) of the k best, best first."""
        scores = (1 - weight) * self.dense + weight * self.lexical
        order = np.lexsort((self.positions, -scores))[:k]
        return self.positions[order], scores[order]


class HybridIndex:
    """A FAISS index and a BM25 index over the same documents."""

    def __init__(self, index: Index, lexical: BM25Index) -> None:
        if lexical.ids is not index.ids and index.ids != lexical.ids:
            raise UserError("the dense and the BM25 index hold different documents; index again")
        self.index, self.lexical = index, lexical

    @classmethod
    def build(cls, index: Index, documents: Iterable[Document]) -> HybridIndex:
        """Add the words of the documents, which are those of `index` in the same order."""
        return cls(index, BM25Index.build((document.content for document in documents), index.ids))

    def save(self, folder: Path | str, overwrite: bool = False) -> None:
        """Write an index folder with a folder of words in it; see `Index.save`."""
        self.index.save(folder, overwrite, beside={WORDS: self.lexical.save})

    @classmethod
    def open(cls, folder: Path | str, **options: bool) -> HybridIndex | None:
        """What `save` wrote; None for an index without words.

        Raises:
            UserError: as `Index.open`, with its options.
        """
        mmap = options.get("mmap", True)
        return unreplaced(Path(folder), lambda: cls.of(Index.open(folder, **options), folder, mmap=mmap))

    @classmethod
    def of(cls, index: Index, folder: Path | str, mmap: bool = True) -> HybridIndex | None:
        """An index opened from a folder with the words in there; None where there are none.

        Raises:
            UserError: when they were damaged, or exchanged for those of other documents.
        """
        if not index.has_beside(folder, WORDS):
            return None
        return cls(index, BM25Index.open(Path(folder) / WORDS, index.ids, mmap=mmap))

    def candidates(
        self, queries: Sequence[str], vectors: NDArray[np.float32], k: int, **parameters: int | None
    ) -> Iterator[Candidates]:
        """For each query the candidates from which its k best are taken.

        Raises:
            UserError: as `Index.search`.
        """
        depth = max(k, DEPTH)
        scores, positions = self.index.nearest(vectors, depth, **parameters)
        for query, vector, found, where in zip(queries, vectors, scores, positions, strict=True):
            yield self._candidates(query, vector, found[where >= 0], where[where >= 0], depth)

    def search(
        self,
        queries: Sequence[str],
        vectors: NDArray[np.float32],
        k: int,
        *,
        weight: float,
        **parameters: int | None,
    ) -> tuple[list[list[float]], list[list[str]]]:
        """Scores and ids of the k best documents of each query, best first; with weight 0 the index's own.

        Args:
            queries: the texts; vectors (q, dimension): their vectors, ready to be compared.
            weight: of BM25, from 0 to 1.
            parameters: of `Index.search`.
        """
        check_weight(weight)
        if weight == 0:
            dense, ids = self.index.search(vectors, k, **parameters)
            return [row[: len(own)] for row, own in zip(dense.tolist(), ids, strict=True)], ids
        best = [each.best(weight, k) for each in self.candidates(queries, vectors, k, **parameters)]
        names = [[self.index.ids[position] for position in positions] for positions, _ in best]
        return [scores.tolist() for _, scores in best], names

    def rank(
        self,
        queries: dict[str, str],
        vectors: NDArray[np.float32],
        k: int,
        weights: Sequence[float],
        **parameters: int | None,
    ) -> list[Run]:
        """A run for each weight, without the document of a query's own id (BEIR's convention). One search for all. Of
        documents where the index knows chunks (see `Index`).

        Args:
            queries: id -> text; vectors (q, dimension).
        """
        for weight in weights:
            check_weight(weight)
        runs: list[Run] = [{} for _ in weights]
        first_of = self.index.first_of
        depth = CHUNKS * k if first_of else k + 1
        pairs = zip(queries, self.candidates(list(queries.values()), vectors, depth, **parameters), strict=True)
        for query, candidates in pairs:
            for run, weight in zip(runs, weights, strict=True):
                positions, scores = candidates.best(weight, depth)
                found = dict(zip((self.index.ids[position] for position in positions), scores.tolist(), strict=True))
                hits = best_passages(found, first_of, k + 1) if first_of else found
                own = first_of.get(query, query)
                run[query] = dict([hit for hit in hits.items() if hit[0] != own][:k])
        return runs

    def _candidates(
        self,
        query: str,
        vector: NDArray[np.float32],
        scores: NDArray[np.float32],
        positions: NDArray[np.int64],
        depth: int,
    ) -> Candidates:
        lexical = self.lexical.scores(query)
        matched = best_positions(lexical, depth)
        more = np.setdiff1d(matched[lexical[matched] > 0], positions)
        floor = float(scores[min(DEPTH, len(scores)) - 1]) if len(scores) else 0.0
        spread = float(scores[0]) - floor if len(scores) else 0.0
        exact = self.index.scores_at(vector, more)
        added = np.full(len(more), scores[-1] if len(scores) else 0.0) if exact is None else exact
        dense = (np.concatenate([scores, added]).astype(np.float64) - floor) / (spread or 1.0)
        everyone = np.concatenate([positions, more]).astype(np.int64)
        bound = self.lexical.bound(query)
        return Candidates(everyone, dense, lexical[everyone].astype(np.float64) / (bound or 1.0))


def check_weight(weight: float) -> None:
    """Raises UserError for what is no weight."""
    if not 0 <= weight <= 1:
        raise UserError(f"the weight of BM25 must be from 0 (the dense ranking) to 1 (BM25 alone), got {weight}")

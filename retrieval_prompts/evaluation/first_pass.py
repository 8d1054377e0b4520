"""The first of two searches: the documents that the frozen model finds, for prompts that are made from them."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retrieval_prompts.data.corpus import Document
from retrieval_prompts.errors import UserError
from retrieval_prompts.evaluation.bm25 import NoWords
from retrieval_prompts.evaluation.hybrid import HybridIndex
from retrieval_prompts.prompts.feedback import UNBOUND, FeedbackPrompt
from retrieval_prompts.prompts.mixture import MixturePrompt
from retrieval_prompts.prompts.strength import between_each
from retrieval_prompts.towers.text import Floats, TextTower
from retrieval_prompts.vectors.encode import encode_texts
from retrieval_prompts.vectors.index import Index

SECOND = 256  # queries whose prompts are made at once


def with_words(index: Index, documents: Iterable[Document], bm25_weight: float) -> Index | HybridIndex:
    """The index with the words of its documents beside it; alone where they have none, or have no weight."""
    if bm25_weight == 0:
        return index
    try:
        return HybridIndex.build(index, documents)
    except NoWords:
        return index


class FirstPass:
    """A search for the best few documents by the frozen model, with BM25 beside it where the index holds words.

    Args:
        searched: an index of frozen documents, with or without their words.
        documents: how many are found a query. Where there are fewer, they are repeated in their order.
        bm25_weight: of BM25, from 0 to 1. Without words in the index it is 0, with a warning.

    `lock` is held while the index is read; by default it is none.

    Raises:
        UserError: when the type of the index does not give its vectors back.
    """

    lock: AbstractContextManager[Any] = nullcontext()

    def __init__(self, searched: Index | HybridIndex, documents: int, bm25_weight: float) -> None:
        if isinstance(searched, Index) and bm25_weight > 0:
            warnings.warn(
                f"these prompts read what BM25 finds (weight {bm25_weight:g}), and the index holds no words: they read "
                "the dense ranking instead; index again with BM25",
                UserWarning,
                stacklevel=3,
            )
            bm25_weight = 0.0
        self.index = searched if isinstance(searched, Index) else searched.index
        self.hybrid = searched if isinstance(searched, HybridIndex) and bm25_weight > 0 else None
        self.documents, self.bm25_weight = documents, bm25_weight
        self.index.vectors_at(np.zeros(1, dtype=np.int64))

    def positions(self, texts: Sequence[str], vectors: Floats) -> NDArray[np.int64]:
        """The positions (queries, documents) in the index of each query's best documents, best first.

        Args:
            texts: the queries; vectors (queries, dimension): their frozen vectors, ready to be compared.
        """
        if not len(texts):
            return np.empty((0, self.documents), dtype=np.int64)
        with self.lock:
            if self.hybrid is not None:
                candidates = self.hybrid.candidates(texts, vectors, self.documents)
                found = [each.best(self.bm25_weight, self.documents)[0] for each in candidates]
            else:
                _, nearest = self.index.nearest(vectors, self.documents)
                found = [row[row >= 0] for row in nearest]
        if not all(map(len, found)):
            raise UserError("the first search found nothing; raise nprobe or ef_search of the index")
        return np.stack([np.resize(row, self.documents) for row in found]).astype(np.int64)

    def vectors(self, positions: NDArray[np.int64]) -> Floats:
        """The vectors (queries, documents, dimension) at positions (queries, documents), as the index keeps them."""
        with self.lock:
            return self.index.vectors_at(positions.reshape(-1)).reshape(*positions.shape, -1)


def prompts_of(
    tower: TextTower,
    texts: Sequence[str],
    frozen: Floats,
    prompt: FeedbackPrompt | MixturePrompt,
    first: FirstPass | None,
) -> tuple[Tensor, NDArray[np.float64]]:
    """The prompts (queries, layers, length, width) of queries, made from their frozen vectors, and how much each counts
    (queries,), from 0 for the frozen model to 1.

    Raises:
        UserError: where prompts read documents and there is no first search.
    """
    if isinstance(prompt, MixturePrompt):
        vectors, share = prompt(torch.from_numpy(frozen).to(tower.device))
        return vectors, share.cpu().numpy().astype(np.float64)
    if first is None:
        raise UserError(UNBOUND)
    found = first.vectors(first.positions(texts, tower.comparable(frozen)))
    made: Tensor = prompt(torch.from_numpy(found).to(tower.device))
    return made, np.ones(len(texts))


@torch.no_grad()
def encode_twice(
    tower: TextTower,
    texts: list[str],
    kind: str,
    prompt: FeedbackPrompt | MixturePrompt,
    strength: float,
    first: FirstPass | None,
) -> Floats:
    """Queries -> vectors (queries, dimension) by prompts that are made from their frozen vectors; see `prompts_of`."""
    if first is None and isinstance(prompt, FeedbackPrompt):
        raise UserError(UNBOUND)
    frozen = encode_texts(tower, texts, "query")
    found = frozen.copy()
    for start in range(0, len(texts), SECOND):
        part = slice(start, start + SECOND)
        vectors, share = prompts_of(tower, texts[part], frozen[part], prompt, first)
        there = np.flatnonzero(share)
        chosen = [texts[start + place] for place in there]
        prompted = encode_texts(tower, chosen, "query", kind, vectors[torch.from_numpy(there).to(vectors.device)])
        whole = between_each(frozen[start + there], prompted, share[there], unit=tower.unit_length)
        strengths = np.full(len(there), strength)
        found[start + there] = between_each(frozen[start + there], whole, strengths, unit=tower.unit_length)
    return found

"""Document vectors that are given instead of encoded: an array, blocks, or an index of the same documents.

They are compared with what the model makes of a sample (see `likeness`) before anything is done with them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from retrieval_prompts.data.corpus import Corpus
from retrieval_prompts.errors import UserError, few
from retrieval_prompts.towers.text import Floats, TextTower
from retrieval_prompts.vectors.blocks import VectorBlocks
from retrieval_prompts.vectors.faiss_index import Rows
from retrieval_prompts.vectors.foreign_files import Chosen
from retrieval_prompts.vectors.index import Index
from retrieval_prompts.vectors.likeness import SAMPLE, check_made

Given: TypeAlias = np.ndarray | VectorBlocks | Rows | Index
HELD = 2e9  # bytes of an index's vectors that are read once and held; beyond, they are read whenever they are asked for


class GivenVectors(VectorBlocks):
    """Vectors that were not encoded here, read from where they are."""

    def __init__(self, chosen: Chosen, dimension: int) -> None:
        super().__init__([], dimension, 0)
        self.chosen = chosen
        self.starts = np.array([0, len(chosen)])

    def __iter__(self) -> Iterator[Floats]:
        return iter(self.chosen)

    def array(self) -> Floats:
        return np.concatenate(list(self))

    def rows(self, positions: NDArray[np.int64]) -> Floats:
        found: Floats = self.chosen.rows(positions)
        return found


def given_vectors(tower: TextTower, given: Given, corpus: Corpus, *, sample: int = SAMPLE) -> VectorBlocks:
    """The vectors of a corpus, in its order, ready to be compared.

    Args:
        given: an array (documents, dimension) or blocks in the corpus's order, or an index that holds its documents.
        sample: how many documents are encoded and compared.

    Raises:
        UserError: where documents have no vector, and, with the likely reason, where vectors are not the model's.
    """
    if isinstance(given, Index):
        positions = _positions(given, corpus)
        chosen = Chosen(given, positions)
        check_made(tower, corpus, chosen, sample=sample, what="the vectors of the index")
        if len(corpus) * tower.dimension * 4 <= HELD:
            return VectorBlocks(list(chosen), tower.dimension, 0)
    else:
        if len(given) != len(corpus):
            raise UserError(f"expected a vector for each of {len(corpus):,} documents, in order, got {len(given):,}")
        chosen = Chosen(given, unit=tower.normalizes_for_search)
        check_made(tower, corpus, chosen, sample=sample, what="the document vectors")
    return GivenVectors(chosen, tower.dimension)


def _positions(index: Index, corpus: Corpus) -> NDArray[np.int64]:
    """Where the index has each document of the corpus."""
    if index.ids == corpus.ids:
        return np.arange(len(corpus))
    found = [index.ids.position(id) for id in corpus.ids]
    if lacking := [id for id, place in zip(corpus.ids, found, strict=True) if place is None]:
        missing = f"{len(lacking):,} of {len(corpus):,} documents ({few(lacking)})"
        raise UserError(f"the index is missing {missing}; index or adopt them first")
    return np.array(found, dtype=np.int64)

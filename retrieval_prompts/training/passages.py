"""Where a corpus is chunks of documents: which chunk a query learns from, and what dev is scored on. Knows no loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.data.corpus import Corpus
from retrieval_prompts.data.judgements import Qrels, Run
from retrieval_prompts.training.task import Positions
from retrieval_prompts.vectors.blocks import VectorBlocks
from retrieval_prompts.vectors.index import Index

POOL_TOKENS = 60_000  # documents that a dev evaluation encodes anew, in tokens


def positives(
    corpus: Corpus, queries: Sequence[str], relevant: Mapping[str, list[str]]
) -> tuple[list[Positions], list[Positions]]:
    """For each query the positions of its relevant documents, and of what does not count: the document of its own id.

    Of documents in chunks these are the first ones: see `best_chunks`.
    """
    found = [np.array(sorted(corpus.position(doc) for doc in relevant[query]), dtype=np.int64) for query in queries]
    return found, [_own(corpus, query) for query in queries]


def _own(corpus: Corpus, query: str) -> Positions:
    """The positions of the document of a query's own id, all of its chunks."""
    first = corpus.stands_for(query)
    if first is None:
        return np.empty(0, dtype=np.int64)
    position = corpus.position(first)
    return np.array([position], dtype=np.int64) if corpus.groups is None else corpus.groups.members(position)


def best_chunks(
    corpus: Corpus,
    queries: np.ndarray,
    relevant: Sequence[Positions],
    own: Sequence[Positions],
    documents: VectorBlocks,
) -> tuple[list[Positions], list[Positions]]:
    """The same with the chunk of each relevant document that is nearest to its query, and with its other chunks, which
    may say something else, among what does not count.

    Args:
        queries: vectors (queries, dimension); documents: those of the chunks.
    """
    groups = corpus.groups
    assert groups is not None
    best, beside = [], []
    for query, firsts, left in zip(queries, relevant, own, strict=True):
        chunks = [groups.members(int(first)) for first in firsts]
        nearest = [int(each[np.argmax(documents.rows(each) @ query)]) for each in chunks]
        best.append(np.array(sorted(nearest), dtype=np.int64))
        others = [each[~np.isin(each, nearest)] for each in chunks]
        beside.append(np.concatenate([left, *others]).astype(np.int64))
    return best, beside


def dev_pool(biencoder: BiEncoder, corpus: Corpus, dev: Qrels, vectors: np.ndarray, index: Index) -> list[int]:
    """The documents of dev evaluations that encode them anew: the relevant ones, then the frozen model's best by rank.

    Args:
        vectors: of the dev queries (queries, dimension), by the frozen model.
    """
    judged = [doc for grades in dev.values() for doc, grade in grades.items() if grade > 0]
    relevant = [corpus.position(doc) for doc in judged]
    if corpus.groups is not None:
        relevant = [int(each) for first in relevant for each in corpus.groups.members(first)]
    _, found = index.search(vectors, 100)
    ranked = [corpus.position(row[rank]) for rank in range(100) for row in found if rank < len(row)]
    pool: list[int] = []
    tokens = 0
    for position in dict.fromkeys([*relevant, *ranked]):
        tokens += len(biencoder.tokenize([corpus[position].content], "document")[0])
        if tokens > POOL_TOKENS and len(pool) >= len(set(relevant)):
            break
        pool.append(position)
    return pool


def of_documents(run: Run, corpus: Corpus) -> Run:
    """A run of chunks as one of documents, each with the score of its best chunk."""
    first_of = corpus.first_of
    if not first_of:
        return run
    found: Run = {}
    for query, scores in run.items():
        own = found.setdefault(query, {})
        for id, score in scores.items():
            first = first_of.get(id, id)
            own[first] = max(score, own.get(first, score))
    return found

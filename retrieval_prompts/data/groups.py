"""Which entries of a corpus are chunks of one document. Its first chunk stands for it in judgements and rankings."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from retrieval_prompts.data.id_list import Ids
from retrieval_prompts.data.judgements import Run


class Groups:
    """Position -> the position of the first chunk of the same document; filled in the order of the corpus."""

    def __init__(self) -> None:
        self._first: dict[str, int] = {}
        self._of = array("q")

    def add(self, id: str, document: str | None) -> None:
        """The next entry is a chunk of this document; None: of the one that has its own id, mostly all of that."""
        here = len(self._of)
        if document is None:
            self._of.append(self._first.get(id, here))
        else:
            self._of.append(self._first.setdefault(document, here))

    def settle(self, ids: Ids) -> None:
        """Once all have come: a document's first chunk may be an entry of the document's own id."""
        moved = {}
        for document, first in self._first.items():
            earlier = ids.position(document)
            if earlier is not None and earlier < first:
                moved[first] = self._first[document] = earlier
        if moved:
            to = np.arange(len(self._of))
            to[list(moved)] = list(moved.values())
            self._of = array("q", to[self.firsts].tobytes())

    def __bool__(self) -> bool:
        """Whether any entry is a chunk of a document with another name."""
        return bool(self._first)

    @property
    def firsts(self) -> NDArray[np.int64]:
        """Of each entry (n,), the position of its document's first chunk."""
        return np.frombuffer(self._of, dtype=np.int64)

    @property
    def documents(self) -> Mapping[str, int]:
        """Document -> the position of its first chunk."""
        return self._first

    def first(self, document: str) -> int | None:
        """Where the chunks of a document begin; None for a document without."""
        return self._first.get(document)

    def members(self, first: int) -> NDArray[np.int64]:
        """The positions of all chunks of the document whose first one is at `first`."""
        order, ordered = self._ordered
        start, stop = np.searchsorted(ordered, [first, first + 1])
        return order[start:stop]

    @cached_property
    def _ordered(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The positions, document by document, and the first of each."""
        order = np.argsort(self.firsts, kind="stable")
        return order, self.firsts[order]


def counted(entries: int, groups: Groups | None) -> str:
    """For messages: "5 documents", or "5 chunks of 2 documents"."""
    if groups is None:
        return f"{entries:,} documents"
    return f"{entries:,} chunks of {len(np.unique(groups.firsts)):,} documents"


class FirstOf(Mapping[str, str]):
    """Chunk, or document -> the id that stands for it, of those that do not stand for themselves; see `Groups`.

    Args:
        ids: of the entries; firsts: (n,) of each the position of its document's first chunk.
        documents: document -> the position of its first chunk.
    """

    def __init__(self, ids: Ids, firsts: NDArray[np.int64], documents: Mapping[str, int]) -> None:
        self._ids, self._firsts, self._documents = ids, firsts, documents

    def __getitem__(self, id: str) -> str:
        position = self._ids.position(id)
        if position is not None and self._firsts[position] != position:
            return self._ids[int(self._firsts[position])]
        if id in self._documents and (found := self._ids[self._documents[id]]) != id:
            return found
        raise KeyError(id)

    def __bool__(self) -> bool:
        return self._any

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __iter__(self) -> Iterator[str]:
        chunks = np.flatnonzero(self._firsts != np.arange(len(self._firsts)))
        yield from (self._ids[int(position)] for position in chunks)
        for document, first in self._documents.items():
            position = self._ids.position(document)
            if self._ids[first] != document and (position is None or self._firsts[position] == position):
                yield document

    @cached_property
    def _any(self) -> bool:
        return next(iter(self), None) is not None


def best_passages(scores: Mapping[str, float], first_of: Mapping[str, str], k: int) -> dict[str, float]:
    """The k best documents of a ranking of chunks, each with the score of its best one (MaxP, Dai and Callan 2019).

    Args:
        scores: chunk -> score, best first.
        first_of: chunk -> the one that stands for its document; others stand for themselves.
    """
    found: dict[str, float] = {}
    for id, score in scores.items():
        found.setdefault(first_of.get(id, id), score)
        if len(found) > k:
            found.popitem()
            break
    return found


def rank_documents(search: Callable[[int], Run], k: int, count: int, first_of: Mapping[str, str]) -> Run:
    """The k best documents of each query, of a search that finds chunks: as deep as it takes.

    Args:
        search: depth -> run. count: of all chunks. first_of: see `best_passages`.
    """
    if not first_of:
        return search(k)
    depth = k
    while True:
        depth = min(4 * depth, count)
        run = search(depth)
        found = {query: best_passages(hits, first_of, k) for query, hits in run.items()}
        if depth >= count or all(len(found[query]) >= k or len(hits) < depth for query, hits in run.items()):
            return found


def drop_own(run: Run, first_of: Mapping[str, str]) -> Run:
    """The run without the document of each query's own id, which BEIR leaves out; `first_of`: see `best_passages`."""
    return {
        query: {id: score for id, score in scores.items() if id != first_of.get(query, query)}
        for query, scores in run.items()
    }

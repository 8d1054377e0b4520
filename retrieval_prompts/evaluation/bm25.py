"""BM25 by bm25s, with the settings that all figures here were made with: an index in memory or memory-mapped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval_prompts.data.judgements import Run
from retrieval_prompts.errors import UserError

WORD = r"(?u)[^\W_]+"
K1, B = 1.5, 0.75
FILES = ("data.csc.index.npy", "indices.csc.index.npy", "indptr.csc.index.npy")  # what bm25s keeps in arrays


class BM25Index:
    """The words of a corpus, made by `build` or `open`.

    bm25s (Lù 2024) as it comes: Lucene's variant, k1 = 1.5, b = 0.75, English stop words and Snowball stemmer; but a
    word is any run of letters and digits, so that `min_cost` is two of them. On SciFact (test, title and text) it
    gives nDCG@10 0.688.
    """

    def __init__(self, model: Any, ids: Sequence[str]) -> None:
        self.model = model  # a bm25s.BM25
        self.ids = ids

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def build(cls, texts: Iterable[str], ids: Sequence[str], *, progress: bool = False) -> BM25Index:
        """Index texts in the order of their ids. Raises UserError for no words, and for another number of ids."""
        import bm25s

        read = list(texts)
        if len(read) != len(ids):
            raise UserError(f"expected one id for each text, got {len(read)} texts and {len(ids)} ids")
        tokens = _tokenize(read, progress)
        if not any(tokens.ids):
            raise UserError(f"BM25 found no words in the {len(read)} documents")
        model = bm25s.BM25(method="lucene", k1=K1, b=B)
        model.index(tokens, show_progress=progress)
        return cls(model, ids)

    def save(self, folder: Path) -> None:
        """Write bm25s's own files into a folder: arrays, and JSON; no pickle."""
        self.model.save(folder, show_progress=False)

    @classmethod
    def open(cls, folder: Path, ids: Sequence[str], *, mmap: bool = True) -> BM25Index:
        """Open what `save` wrote; with `mmap` the arrays stay on disk until a search reads them.

        Raises UserError when it is damaged, or holds another number of documents.
        """
        import bm25s

        try:
            model = bm25s.BM25.load(folder, mmap=mmap, allow_pickle=False, show_progress=False)
            count = int(model.scores["num_docs"])
        except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
            raise UserError(f"the BM25 index in {folder} is damaged ({error}); index again") from None
        if count != len(ids):
            raise UserError(f"the BM25 index in {folder} is of {count} documents, expected {len(ids)}; index again")
        return cls(model, ids)

    @property
    def nbytes(self) -> int:
        """Of its arrays."""
        return sum(int(self.model.scores[name].nbytes) for name in ("data", "indices", "indptr"))

    def scores(self, query: str) -> NDArray[np.float32]:
        """The score (documents,) of every document; 0 for one that shares no word with the query."""
        known = [self.model.vocab_dict[word] for word in words(query) if word in self.model.vocab_dict]
        if not known:
            return np.zeros(len(self), dtype=np.float32)
        found: NDArray[np.float32] = self.model.get_scores_from_ids(known)
        return found

    def bound(self, query: str) -> float:
        """The score that no document can exceed with this query: the sum of its words' inverse document frequencies.

        Words that no document has count as well: a query that is mostly strange to the corpus matches nothing well.
        """
        indptr, count = self.model.scores["indptr"], len(self)
        known = [self.model.vocab_dict.get(word) for word in words(query)]
        with_word = np.array([0 if id is None else int(indptr[id + 1] - indptr[id]) for id in known])
        return float(np.log(1 + (count - with_word + 0.5) / (with_word + 0.5)).sum())

    def run(self, queries: Mapping[str, str], k: int) -> Run:
        """The k best documents of each query, without those that share no word with it."""
        run: Run = {}
        for query, text in queries.items():
            scores = self.scores(text)
            best = best_positions(scores, k)
            run[query] = {self.ids[position]: float(scores[position]) for position in best if scores[position] > 0}
        return run


def bm25_run(texts: Iterable[str], ids: Sequence[str], queries: Mapping[str, str], k: int = 100) -> Run:
    """The k best documents of each query among texts that are indexed for these queries alone; see `BM25Index`."""
    return BM25Index.build(texts, ids).run(queries, k) if queries else {}


def best_positions(scores: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Where the k highest scores stand, best first; equal ones in the order of the documents."""
    if k < len(scores):
        least = np.partition(scores, -k)[-k]
        positions = np.flatnonzero(scores >= least)
    else:
        positions = np.arange(len(scores))
    order = np.argsort(-scores[positions], kind="stable")[:k]
    return positions[order].astype(np.int64)


def words(text: str) -> list[str]:
    """The stemmed words of a text, without stop words, in its order."""
    tokens = _tokenize([text], False)
    word_of = {id: word for word, id in tokens.vocab.items()}
    return [word_of[id] for id in tokens.ids[0]]


def _tokenize(texts: list[str], progress: bool) -> Any:
    import bm25s

    return bm25s.tokenize(texts, token_pattern=WORD, stopwords="english", stemmer=_stemmer(), show_progress=progress)


@lru_cache(maxsize=1)
def _stemmer() -> Any:
    import Stemmer

    return Stemmer.Stemmer("english")

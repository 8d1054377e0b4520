"""BM25 by bm25s, with the settings that all figures here were made with: an index in memory or memory-mapped."""

from __future__ import annotations

import math
import re
import warnings
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from retrieval_prompts.data.judgements import Run
from retrieval_prompts.errors import DataWarning, UserError, few, first_line
from retrieval_prompts.evaluation.scripts import has_other_script, segments
from retrieval_prompts.files import read_array, read_json, write_json

WORD = r"(?u)[^\W_]+"
METHOD, K1, B = "lucene", 1.5, 0.75
SCRIPTS = 1  # how `segments` divides texts; another number where that changes
WORDS_FILE = "words.json"
TOKENS = 1 << 18  # that are sorted at once
ARRAYS = {"data": np.float32, "indices": np.int32, "indptr": np.int64}  # of bm25s, a file each: a matrix in CSC format


class NoWords(UserError):
    """Documents without a single word, which BM25 cannot index."""


class BM25Index:
    """The words of a corpus, made by `build` or `open`.

    bm25s (Lù 2024) as it comes: Lucene's variant, k1 = 1.5, b = 0.75, English stop words and Snowball stemmer; but a
    word is any run of letters and digits, so that `min_cost` is two of them. Scripts without spaces have words of their
    own; see `scripts`. On SciFact (test, title and text) it gives nDCG@10 0.688.
    """

    def __init__(self, model: Any, ids: Sequence[str]) -> None:
        self.model = model  # a bm25s.BM25
        self.ids = ids

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def build(cls, texts: Iterable[str], ids: Sequence[str]) -> BM25Index:
        """Index texts in the order of their ids; the same texts give the same bytes.

        Raises NoWords, and UserError for another number of ids.
        """
        vocabulary: dict[str, int] = {}
        tokens, ends = array("i"), array("q")
        with tqdm(texts, total=len(ids), desc="words for BM25", unit="text", delay=1, mininterval=0.5) as bar:
            for text in bar:
                tokens.extend([vocabulary.setdefault(word, len(vocabulary)) for word in words(text)])
                ends.append(len(tokens))
        if len(ends) != len(ids):
            raise UserError(f"expected one id for each text, got {len(ends)} texts and {len(ids)} ids")
        if not vocabulary:
            raise NoWords(f"BM25 found no words in the {len(ends)} documents")
        model = _model()
        model.scores = _scored(np.frombuffer(tokens, np.int32), np.frombuffer(ends, np.int64), len(vocabulary))
        vocabulary.setdefault("", len(vocabulary))
        model.vocab_dict = vocabulary
        return cls(model, ids)

    def save(self, folder: Path) -> None:
        """Write bm25s's own files into a folder, arrays and JSON, no pickle; and how texts were made words."""
        self.model.save(folder, show_progress=False)
        write_json(folder / WORDS_FILE, {"scripts": SCRIPTS})

    @classmethod
    def open(cls, folder: Path, ids: Sequence[str], *, mmap: bool = True) -> BM25Index:
        """Open what `save` wrote; with `mmap` the arrays stay on disk until a search reads them.

        What is read is checked to be an index; that it is the one which was written is for its owner to know.

        Raises:
            UserError: when it is damaged, was made with other settings or other words, or holds another number of
                documents.
        """
        model = _model()
        try:
            made = read_json(folder / "params.index.json")
            settings = made["method"], made["k1"], made["b"]
            model.vocab_dict = read_json(folder / "vocab.index.json")
            model.scores = {
                name: read_array(folder / f"{name}.csc.index.npy", kind, 1, mmap=mmap) for name, kind in ARRAYS.items()
            }
            model.scores["num_docs"] = count = int(made["num_docs"])
            _check(model.scores, model.vocab_dict)
            same_words = _same_words(folder, model.vocab_dict)
        except Exception as error:  # numpy makes anything of a damaged file
            raise UserError(f"the BM25 index in {folder} is damaged ({first_line(error)}); index again") from None
        if settings != (METHOD, K1, B):
            raise UserError(f"the BM25 index in {folder} was made with other settings, {settings}; index again")
        if not same_words:
            raise UserError(f"the BM25 index in {folder} divides texts without spaces in another way; index again")
        if count != len(ids):
            raise UserError(f"the BM25 index in {folder} holds {count} documents, expected {len(ids)}; index again")
        return cls(model, ids)

    @property
    def nbytes(self) -> int:
        """Of its arrays."""
        return sum(int(self.model.scores[name].nbytes) for name in ARRAYS)

    def scores(self, query: str) -> NDArray[np.float32]:
        """The score (documents,) of every document; 0 for one that shares no word with the query."""
        return self._scores(words(query))

    def _scores(self, looked_for: Sequence[str]) -> NDArray[np.float32]:
        known = [self.model.vocab_dict[word] for word in looked_for if word in self.model.vocab_dict]
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
        """The k best documents of each query, without those that share no word with it.

        Queries without a word are counted in a DataWarning.
        """
        run: Run = {}
        wordless: list[str] = []
        for query, text in queries.items():
            looked_for = words(text)
            wordless += [query] * (not looked_for)
            scores = self._scores(looked_for)
            best = best_positions(scores, k)
            run[query] = {self.ids[position]: float(scores[position]) for position in best if scores[position] > 0}
        if wordless:
            count = f"{len(wordless)} of {len(queries)}"
            message = f"{count} queries have no word that BM25 could look for ({few(wordless)})"
            warnings.warn(message, DataWarning, stacklevel=2)
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
    """The stemmed words of a text, without stop words, in its order: those that `bm25s.tokenize` finds, but in scripts
    of which it knows no words."""
    text = text.lower()
    found, other = segments(text) if has_other_script(text) else (re.findall(WORD, text), None)
    stop_words, stemmer = _english()
    if other is None:
        stems: list[str] = stemmer.stemWords([word for word in found if word not in stop_words])
        return stems
    return [
        word if strange else stemmer.stemWord(word)
        for word, strange in zip(found, other, strict=True)
        if strange or word not in stop_words
    ]


@lru_cache(maxsize=1)
def _english() -> tuple[frozenset[str], Any]:
    """Stop words, and a stemmer."""
    import Stemmer
    from bm25s.stopwords import STOPWORDS_EN

    return frozenset(STOPWORDS_EN), Stemmer.Stemmer("english")


def _model() -> Any:
    """A bm25s.BM25 without words."""
    import bm25s

    model = bm25s.BM25(method=METHOD, k1=K1, b=B)
    model.nonoccurrence_array = None  # Lucene's variant gives nothing for absent words
    return model


def _scored(tokens: NDArray[np.int32], ends: NDArray[np.int64], vocabulary: int) -> dict[str, Any]:
    """The scores that bm25s computes, bit by bit, of documents (n,) one behind the other; it would want them as lists,
    and eight times the memory of what is returned (8 bytes a word and document).

    Args:
        ends: (n,) behind the last token of each; vocabulary: the number of words.
    """
    lengths = np.diff(ends, prepend=0)
    frequencies, heads = np.zeros(vocabulary, dtype=np.int64), np.zeros(vocabulary + 1, dtype=np.int64)
    for _, _, found, _, counts in _counted(tokens, ends):
        frequencies[found] += counts
    np.cumsum(frequencies, out=heads[1:])
    data, indices = np.empty(heads[-1], dtype=np.float32), np.empty(heads[-1], dtype=np.int32)
    count, mean = len(ends), len(tokens) / len(ends)
    idf = np.array([math.log(1 + (count - each + 0.5) / (each + 0.5)) for each in frequencies.tolist()], np.float32)
    indptr = heads.copy()
    for documents, times, found, starts, counts in _counted(tokens, ends):
        share = times / (K1 * ((1 - B) + B * lengths[documents] / mean) + times)
        places = np.repeat(heads[found] - starts, counts) + np.arange(len(documents))
        data[places] = np.repeat(idf[found], counts) * share
        indices[places] = documents
        heads[found] += counts
    return {"data": data, "indices": indices, "indptr": indptr, "num_docs": count}


def _counted(tokens: NDArray[np.int32], ends: NDArray[np.int64]) -> Iterator[tuple[NDArray[Any], ...]]:
    """For each block of documents, by word and then by document: documents (p,), how often each has the word (p,); and
    of the words that occur (w,): which they are, where the documents of each begin, and how many there are."""
    start = 0
    while start < len(ends):
        first = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, first + TOKENS, side="right")))
        size = stop - start
        owners = np.repeat(np.arange(size), np.diff(ends[start:stop], prepend=first))
        pairs, times = np.unique(tokens[first : ends[stop - 1]] * np.int64(size) + owners, return_counts=True)
        found, starts, counts = np.unique(pairs // size, return_index=True, return_counts=True)
        yield start + pairs % size, times.astype(np.float64), found, starts, counts
        start = stop


def _same_words(folder: Path, vocabulary: Mapping[str, int]) -> bool:
    """Whether an index has words as `words` makes them. Those that do not say so know Latin words and their like."""
    if (folder / WORDS_FILE).exists():
        return bool(read_json(folder / WORDS_FILE) == {"scripts": SCRIPTS})
    return not any(map(has_other_script, vocabulary))


def _check(scores: Mapping[str, Any], vocabulary: Mapping[str, int]) -> None:
    """Raises ValueError unless every word points at scores, and every score at a document."""
    data, indices, indptr = (scores[name] for name in ARRAYS)
    if sorted(id for word, id in vocabulary.items() if word) != list(range(len(indptr) - 1)):
        raise ValueError(f"the words do not fit their {len(indptr) - 1} lists")
    if indptr[0] != 0 or (np.diff(indptr) < 0).any() or not indptr[-1] == len(data) == len(indices):
        raise ValueError("the lists do not fit the scores")
    if indices.min() < 0 or indices.max() >= scores["num_docs"]:
        raise ValueError("a score is that of no document")

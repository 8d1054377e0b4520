"""FAISS index types measured side by side, at several search settings. Knows no model; see `index_tradeoffs`."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from retrieval_prompts.data.judgements import Qrels, Run
from retrieval_prompts.errors import UserError
from retrieval_prompts.evaluation.hybrid import CHUNKS
from retrieval_prompts.evaluation.metrics import HEADLINE, drop_identical, per_query
from retrieval_prompts.vectors import faiss_index
from retrieval_prompts.vectors.faiss_index import Rows

DEPTH = 10  # documents that HEADLINE looks at
SWEEP = {"nprobe": (1, 4, 16, 64), "ef_search": (16, 64, 256), "k_factor": (1, 4, 16)}
BATCH = 1000  # queries of a timed search, at least
LEAST_SECONDS = 0.2  # a setting is timed for at least so long


@dataclass(frozen=True)
class Measured:
    """How index types are measured.

    Args:
        k: recall@k is the share of the k documents that an exact search of the same query vectors finds; a document
            whose exact score equals the k-th counts too.
        repeats: a search of all queries in one batch is timed so often (and for 0.2 s at least), after a warm-up. Fewer
            than BATCH queries are repeated to make as many: FAISS treats small batches in another, slower way.
        train_size, gpu: see `faiss_index.build`.
        firsts: of each vector the position of its document's first chunk (see `data.groups`), where vectors are those
            of chunks: documents are then found, each by its best chunk.
    """

    k: int = 10
    repeats: int = 3
    train_size: int | None = None
    gpu: bool = True
    firsts: np.ndarray | None = None


@dataclass(frozen=True)
class EachQuery:
    """The recall of every query, and with judgements its nDCG@10 by id: with this index, and with exact search."""

    recall: list[float]
    ndcg: dict[str, float] | None = None
    exact_ndcg: dict[str, float] | None = None


@dataclass(frozen=True)
class Measurement:
    """What one index type did at one setting with one kind of queries.

    Args:
        train_size: vectors that it was trained on; None: it needs no training.
        bytes_per_vector: of the index as a file, without ids and texts.
        setting: parameter -> value, of SWEEP, as far as the index has them.
        queries: the name of the queries.
        recall: recall@k, in [0, 1].
        each: what the means are of; not in the JSON.
    """

    factory: str
    build_seconds: float
    train_size: int | None
    bytes_per_vector: float
    gpu: bool
    setting: dict[str, int]
    queries: str
    k: int
    recall: float
    queries_per_second: float
    threads: int
    ndcg: float | None = None
    exact_ndcg: float | None = None
    each: EachQuery | None = None

    def to_json(self) -> dict[str, Any]:
        """Every field but `each` by its name; with judgements "ndcg@10" and "exact_ndcg@10"."""
        plain = {name: value for name, value in vars(self).items() if name not in ("ndcg", "exact_ndcg", "each")}
        return plain | ({HEADLINE: self.ndcg, f"exact_{HEADLINE}": self.exact_ndcg} if self.ndcg is not None else {})


def compare_factories(
    vectors: np.ndarray | Rows,
    ids: Sequence[str],
    queries: np.ndarray | Mapping[str, np.ndarray],
    factories: Iterable[str],
    *,
    query_ids: Sequence[str] | None = None,
    qrels: Qrels | None = None,
    measured: Measured = Measured(),
    progress: Callable[[str], object] | None = None,
) -> list[Measurement]:
    """Build an index of each type over the same document vectors, and search it with the same queries.

    Args:
        vectors: (n, dimension), or blocks with `rows` (`VectorBlocks`); `ids` are theirs.
        queries: (q, dimension), or several such matrices by name: the vectors of two query encoders, for instance.
        factories: FAISS index factory strings.
        query_ids: of each query; needed with qrels, over which `per_query` averages.
        progress: called with what comes next.

    Returns a measurement for each factory, setting and name of queries, in this order.

    Raises:
        UserError: for what does not fit together, and as `faiss_index.build` does.
    """
    k, gpu = measured.k, measured.gpu
    named = {"queries": queries} if isinstance(queries, np.ndarray) else dict(queries)
    named = {name: faiss_index.matrix(each, "queries") for name, each in named.items()}
    count, ids = len(vectors), list(ids)
    if len(ids) != count:
        raise UserError(f"expected one id for each vector, got {count} vectors and {len(ids)} ids")
    if k < 1 or not named or any(len(each) == 0 for each in named.values()):
        asked = sum(map(len, named.values()))
        raise UserError(f"expected queries and a k of at least 1, got k = {k} and {asked} queries")
    if qrels is not None and (query_ids is None or any(len(each) != len(query_ids) for each in named.values())):
        raise UserError("nDCG needs the id of each query: pass query_ids, one for each query vector")
    names = list(query_ids or [])
    depth = max(k, DEPTH) + bool(set(names) & set(ids)) if qrels is not None else k
    depth = min(count, depth if measured.firsts is None else CHUNKS * depth)

    if progress is not None:
        progress("exact search")
    flat, record = faiss_index.build(vectors, "Flat", gpu=gpu)
    given: dict[str, Any] = {"factory": "Flat", "gpu": record["gpu"]}
    exact = {
        name: _documents(*faiss_index.search(flat, each, depth, **given), measured) for name, each in named.items()
    }
    del flat

    ndcg = functools.partial(_ndcg, qrels, names, ids)
    exact_ndcg = {name: ndcg(found) for name, found in exact.items()}
    rows: list[Measurement] = []
    for factory in factories:
        if progress is not None:
            progress(factory)
        start = time.perf_counter()
        index, record = faiss_index.build(vectors, factory, train_size=measured.train_size, gpu=gpu)
        built = {
            "factory": factory,
            "build_seconds": time.perf_counter() - start,
            "train_size": record["train_size"],
            "bytes_per_vector": faiss_index.size(faiss_index.to_cpu(index, record["gpu"])) / count,
            "gpu": record["gpu"],
        }
        for setting in settings(faiss_index.accepted(index, record["gpu"]), record["lists"]):
            options: dict[str, Any] = {"factory": factory, "gpu": record["gpu"], **setting}
            for name, each in named.items():
                found = _documents(*faiss_index.search(index, each, depth, **options), measured)
                recall = _recall(vectors, each, found.best(k), exact[name].best(k))
                kept = EachQuery(recall.tolist(), ndcg(found), exact_ndcg[name])
                rows.append(
                    Measurement(
                        **built,
                        setting=setting,
                        queries=name,
                        k=k,
                        recall=float(recall.mean()),
                        queries_per_second=_speed(index, each, depth, measured.repeats, options),
                        threads=faiss_index.threads(),
                        ndcg=_mean(kept.ndcg),
                        exact_ndcg=_mean(kept.exact_ndcg),
                        each=kept,
                    )
                )
    return rows


def settings(parameters: Sequence[str], lists: int | None) -> list[dict[str, int]]:
    """Every combination in SWEEP of an index's search parameters; of nprobe no more than the index has lists."""
    sweep = {name: SWEEP[name] for name in parameters}
    if lists is not None:
        sweep["nprobe"] = tuple(value for value in SWEEP["nprobe"] if value <= lists)
        sweep.pop("ef_search", None)  # of the graph over the centroids, which is not what takes the time
    return [dict(zip(sweep, values, strict=True)) for values in product(*sweep.values())]


def parse_factories(texts: Iterable[str], dimension: int) -> list[str]:
    """Lists of factory strings -> factory strings, in order, each once. A factory string may have commas itself.

    "Flat;IVF256,SQ8": semicolons separate, and what is between them is taken as it is, in "HNSW32,SQ8;" for instance.
    Without one, commas separate where every part alone is a factory ("Flat,HNSW32"), and where there is only one way to
    put the parts together to factories ("Flat,IVF256,SQ8").

    Raises:
        UserError: for anything else.
    """
    found: list[str] = []
    for text in texts:
        if ";" in text:
            chosen = [part.strip() for part in text.split(";") if part.strip()]
            for factory in chosen:
                faiss_index.make(factory, dimension)
        else:
            chosen = _by_commas([part.strip() for part in text.split(",")], text, dimension)
        found += chosen
    if not found:
        raise UserError("expected index types to compare, such as Flat,HNSW32 or 'Flat;IVF256,SQ8', got none")
    return list(dict.fromkeys(found))


def _by_commas(parts: list[str], text: str, dimension: int) -> list[str]:
    @functools.cache
    def valid(factory: str) -> bool:
        try:
            faiss_index.make(factory, dimension)
        except UserError:
            return False
        return True

    @functools.cache
    def ways(start: int) -> list[list[str]]:
        """Up to two ways to put the parts from `start` together."""
        if start == len(parts):
            return [[]]
        heads = ((",".join(parts[start:stop]), stop) for stop in range(start + 1, min(start + 4, len(parts)) + 1))
        return [[head, *rest] for head, stop in heads if valid(head) for rest in ways(stop)][:2]

    if all(map(valid, parts)):
        return parts
    found = ways(0)
    if not found:
        if len(parts) == 1:
            faiss_index.make(text, dimension)  # raises, with FAISS's reason
        raise UserError(
            f"{text!r} is not a list of FAISS index types for vectors of dimension {dimension}; "
            "separate them by ';' to see which one is not, as in 'Flat;IVF256,SQ8'"
        )
    if len(found) > 1:
        one, other = (" and ".join(way) for way in found)
        raise UserError(f"{text!r} may mean {one}, or {other}; separate index types by ';', as in 'Flat;IVF256,SQ8'")
    return found[0]


@dataclass(frozen=True)
class _Documents:
    """What a search found, best first, each (q, n): scores; the positions of the vectors that have them, -1 where there
    is none; and of the documents, which are the same where documents are not in chunks."""

    scores: np.ndarray
    vectors: np.ndarray
    documents: np.ndarray

    def best(self, k: int) -> _Documents:
        return _Documents(self.scores[:, :k], self.vectors[:, :k], self.documents[:, :k])


def _documents(scores: np.ndarray, positions: np.ndarray, measured: Measured) -> _Documents:
    """The documents of a search that has found chunks, each with the best of them."""
    if measured.firsts is None:
        return _Documents(scores, positions, positions)
    documents = np.where(positions >= 0, measured.firsts[positions], -1)
    kept = [np.sort(np.unique(row, return_index=True)[1]) for row in documents]
    kept = [places[row[places] >= 0] for row, places in zip(documents, kept, strict=True)]
    width = max(map(len, kept))

    def taken(of: np.ndarray, nothing: float) -> np.ndarray:
        rows = [
            np.pad(row[at], (0, width - len(at)), constant_values=nothing) for row, at in zip(of, kept, strict=True)
        ]
        return np.stack(rows)

    return _Documents(taken(scores, -np.inf), taken(positions, -1), taken(documents, -1))


def _recall(vectors: np.ndarray | Rows, queries: np.ndarray, came: _Documents, exact: _Documents) -> np.ndarray:
    """(q,) the share of the exact best that was found."""
    hits = ((came.documents[:, :, None] == exact.documents[:, None, :]) & (came.documents >= 0)[:, :, None]).any(axis=2)
    found, there = came.vectors, exact.documents >= 0
    query, place = np.nonzero(~hits & (found >= 0))
    if len(query):
        last = np.where(there, exact.scores, np.inf).min(axis=1)[query]
        for start in range(0, len(query), faiss_index.BLOCK):  # others that tie with the last exact one, up to rounding
            part = slice(start, start + faiss_index.BLOCK)
            positions = found[query[part], place[part]]
            rows = vectors[positions] if isinstance(vectors, np.ndarray) else vectors.rows(positions)
            true = np.einsum("nd,nd->n", queries[query[part]], rows)
            hits[query[part], place[part]] = true >= last[part] - 1e-6 * np.abs(last[part])
    share: np.ndarray = hits.sum(axis=1) / np.maximum(there.sum(axis=1), 1)
    return share


def _ndcg(qrels: Qrels | None, names: Sequence[str], ids: Sequence[str], found: _Documents) -> dict[str, float] | None:
    """Query -> nDCG@10 of what a search found, without the document of the query's own id; None without judgements."""
    if qrels is None:
        return None
    run: Run = {
        query: {ids[at]: float(score) for at, score in zip(row, row_scores, strict=True) if at >= 0}
        for query, row, row_scores in zip(names, found.documents, found.scores, strict=True)
    }
    return per_query(qrels, drop_identical(run), [HEADLINE])[HEADLINE]


def _mean(values: Mapping[str, float] | None) -> float | None:
    return statistics.fmean(values.values()) if values is not None else None


def _speed(index: Any, queries: np.ndarray, depth: int, repeats: int, options: Mapping[str, Any]) -> float:
    """Queries a second, by the median time of a search."""
    batch = np.resize(queries, (max(BATCH, len(queries)), queries.shape[1]))
    faiss_index.search(index, batch, depth, **options)
    times: list[float] = []
    while len(times) < repeats or sum(times) < LEAST_SECONDS:
        start = time.perf_counter()
        faiss_index.search(index, batch, depth, **options)
        times.append(time.perf_counter() - start)
    return len(batch) / statistics.median(times)

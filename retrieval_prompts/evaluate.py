"""Runs in, metrics and statistics out: trec_eval's metrics, paired tests, BM25, TREC run files. Knows no model."""

from __future__ import annotations

import gzip
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval_prompts.data import Qrels, Run, read_lines
from retrieval_prompts.errors import UserError
from retrieval_prompts.files import write_bytes

if TYPE_CHECKING:
    from rich.table import Table

METRICS = ("ndcg@10", "mrr@10", "map@100", "recall@10", "recall@100")
TREC_EVAL = {  # our name -> theirs
    "ndcg": "ndcg_cut",
    "map": "map_cut",
    "recall": "recall",
    "precision": "P",
    "hit": "success",
}
METRIC = re.compile(rf"({'|'.join(TREC_EVAL)}|mrr)@([1-9][0-9]{{0,5}})", re.ASCII)
WORD = r"(?u)[^\W_]+"
BLOCK = 2_000_000  # resampled values at once: bounds the memory of the statistics


def per_query(qrels: Qrels, run: Run, metrics: Sequence[str] = METRICS) -> dict[str, dict[str, float]]:
    """Metric -> query id -> value in [0, 1], for every query of `qrels`; one without an entry in the run scores 0.

    Computed by trec_eval (pytrec_eval, Van Gysel and de Rijke 2018), so ties are broken as it does: score as float32,
    then document id, both descending. A metric is ndcg, mrr, map, recall, precision or hit (1 where any relevant
    document is found), "@" and a cutoff; nDCG has linear gains. Raises UserError for another name, for empty qrels,
    and for a score that is not a finite number.
    """
    import pytrec_eval

    cutoffs = {metric: parse_metric(metric) for metric in metrics}
    if not qrels:
        raise UserError("there are no judged queries to evaluate on")
    judged = {query: {id: float(score) for id, score in run.get(query, {}).items()} for query in qrels}
    _check_finite(judged)
    measures = {f"{TREC_EVAL[name]}.{k}" if name in TREC_EVAL else "recip_rank" for name, k in cutoffs.values()}
    values = pytrec_eval.RelevanceEvaluator(qrels, measures).evaluate(judged)

    def value(query: str, name: str, k: int) -> float:
        if name in TREC_EVAL:
            return values.get(query, {}).get(f"{TREC_EVAL[name]}_{k}", 0.0)
        # trec_eval's recip_rank has no cutoff; it is 1 / rank, so the cutoff can be applied afterwards.
        reciprocal = values.get(query, {}).get("recip_rank", 0.0)
        return reciprocal if reciprocal * (k + 0.5) > 1 else 0.0

    return {metric: {query: value(query, *cutoff) for query in qrels} for metric, cutoff in cutoffs.items()}


def means(per_query: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The mean over queries of each metric."""
    return {metric: math.fsum(values.values()) / len(values) for metric, values in per_query.items()}


def best_first(scores: Mapping[str, float]) -> list[tuple[str, float]]:
    """(document id, score) of a query in the order in which trec_eval ranks them; see `per_query`."""
    return sorted(scores.items(), key=lambda item: (np.float32(item[1]), item[0]), reverse=True)


def drop_identical(run: Run) -> Run:
    """The run without documents that carry the id of their query, as BEIR scores ArguAna and Quora."""
    return {query: {id: score for id, score in scores.items() if id != query} for query, scores in run.items()}


@dataclass(frozen=True)
class Comparison:
    metric: str
    difference: float  # mean of system - baseline
    ci95: tuple[float, float]
    p_value: float  # two-sided
    helped: int  # queries on which the system is better
    hurt: int
    unchanged: int

    def as_dict(self) -> dict[str, Any]:
        return {**vars(self), "ci95": list(self.ci95)}


def compare(
    baseline: Mapping[str, float],
    system: Mapping[str, float],
    metric: str,
    resamples: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Is the system better than the baseline on this metric? Both map query id -> value, for the same queries.

    ci95: percentile bootstrap of the mean difference over queries (Efron and Tibshirani 1993, chapter 13).
    p_value: two-sided paired permutation test, that is random flips of the sign of each query's difference, which
    are enumerated where `resamples` allow it (Smucker et al. 2007, "A comparison of statistical significance tests for
    information retrieval evaluation"). The same seed gives the same numbers. With a single query the interval is a
    point and p is 1. Raises UserError if the query sets differ or are empty.
    """
    if baseline.keys() != system.keys():
        odd = sorted(baseline.keys() ^ system.keys())
        raise UserError(
            f"expected the same queries on both sides, got {len(baseline)} and {len(system)};"
            f" {len(odd)} are on one side only ({', '.join(odd[:3])}{', ...' if len(odd) > 3 else ''})"
        )
    if not baseline:
        raise UserError("there are no queries to compare on")
    differences = np.array([system[query] - baseline[query] for query in baseline])  # (queries,)
    return Comparison(
        metric=metric,
        difference=float(differences.mean()),
        ci95=_bootstrap(differences, resamples, seed),
        p_value=_sign_flips(differences[differences != 0], resamples, seed),
        helped=int((differences > 0).sum()),
        hurt=int((differences < 0).sum()),
        unchanged=int((differences == 0).sum()),
    )


def _bootstrap(differences: np.ndarray, resamples: int, seed: int) -> tuple[float, float]:
    from scipy.stats import bootstrap

    if np.all(differences == differences[0]):
        return float(differences[0]), float(differences[0])
    interval = bootstrap(
        (differences,),
        np.mean,
        n_resamples=resamples,
        batch=max(1, BLOCK // len(differences)),
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def _sign_flips(differences: np.ndarray, resamples: int, seed: int) -> float:
    """The share of sign patterns whose sum is as far from 0 as the observed one; a zero has no sign, so leave it out.

    scipy.stats.permutation_test as one matrix product a block, some 20 times as fast. Of random patterns the observed
    one is counted as one more, so p is never 0 (Phipson and Smyth 2010).
    """
    n = len(differences)  # n = 0: one pattern, p = 1
    exact = n < resamples.bit_length()  # 2**n <= resamples
    patterns = 2**n if exact else resamples
    total, rounding = differences.sum(), 1e-12 * np.abs(differences).sum()
    rng = np.random.default_rng(seed)
    rows = max(1, BLOCK // max(1, n))
    extreme = 0
    for start in range(0, patterns, rows):
        pattern = np.arange(start, min(start + rows, patterns))
        if exact:
            flipped = pattern[:, None] >> np.arange(n) & 1
        else:
            flipped = rng.integers(0, 2, size=(len(pattern), n), dtype=np.int8)
        sums = total - 2 * (flipped @ differences)  # (rows,)
        extreme += int((np.abs(sums) >= abs(total) - rounding).sum())
    return extreme / patterns if exact else (extreme + 1) / (patterns + 1)


def bm25_run(
    corpus_texts: Iterable[str],
    corpus_ids: Sequence[str],
    queries: Mapping[str, str],
    k: int = 100,
    *,
    progress: bool = False,
) -> Run:
    """The k best documents of each query by BM25, without those that share no term with it.

    bm25s (Lù 2024) as it comes: Lucene's variant, k1 = 1.5, b = 0.75, English stop words and Snowball stemmer; but a
    word is any run of letters and digits, so that `min_cost` is two of them. On SciFact (test, title and text) it
    gives nDCG@10 0.688. Raises UserError if there are no words to index, and if
    texts and ids differ in number.
    """
    import bm25s
    import Stemmer

    def tokenize(texts: list[str]) -> Any:
        return bm25s.tokenize(texts, token_pattern=WORD, stopwords="english", stemmer=stemmer, show_progress=progress)

    stemmer = Stemmer.Stemmer("english")
    texts = list(corpus_texts)
    if len(texts) != len(corpus_ids):
        raise UserError(f"expected one id for each text, got {len(texts)} texts and {len(corpus_ids)} ids")
    if not queries:
        return {}
    tokens = tokenize(texts)
    if not any(tokens.ids):
        raise UserError(f"BM25 found no words in the {len(texts)} documents")
    model = bm25s.BM25(method="lucene", k1=1.5, b=0.75)
    model.index(tokens, show_progress=progress)
    positions, scores = model.retrieve(
        tokenize(list(queries.values())), k=min(k, len(texts)), show_progress=progress, backend_selection="numpy"
    )
    return {
        query: {corpus_ids[i]: float(score) for i, score in zip(row, row_scores, strict=True) if score > 0}
        for query, row, row_scores in zip(queries, positions, scores, strict=True)
    }


def write_run(path: Path | str, run: Run, tag: str) -> None:
    """Write a TREC run file, atomically: lines "query Q0 document rank score tag", gzipped if the name ends in .gz.

    Queries keep their order, documents are sorted as trec_eval sorts them; scores are written in full. A query
    without documents leaves no line. Raises UserError for an id or tag that is empty or holds white space (the columns
    are divided by it), and for a score that is not a finite number.
    """
    path = Path(path)
    _check_finite(run)
    for name in {tag, *run, *(id for scores in run.values() for id in scores)}:
        if name.split() != [name]:
            raise UserError(f"{path}: a TREC run cannot hold the id or tag {name!r}: it is empty or has white space")
    blocks = []  # a query each: millions of lines would be as many objects
    for query, scores in run.items():
        ranked = enumerate(best_first(scores), 1)
        lines = (f"{query} Q0 {id} {rank} {float(score)!r} {tag}\n" for rank, (id, score) in ranked)
        blocks.append("".join(lines).encode())
    content = b"".join(blocks)
    write_bytes(path, gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def read_run(path: Path | str) -> Run:
    """Read a TREC run file, gzipped if it ends in .gz. The rank and tag columns are not used: scores decide.

    Raises UserError with file and line for a line without 6 columns, a score that is not a finite number, and a
    document that comes twice for a query.
    """
    run: Run = {}
    for number, line in read_lines(Path(path)):
        columns = line.split()
        if len(columns) != 6:
            raise UserError(
                f'{path}:{number}: expected 6 columns "query Q0 document rank score tag", got {len(columns)}'
            )
        query, _, document, _, score, _ = columns
        value = _number(score)
        if not math.isfinite(value):
            raise UserError(f"{path}:{number}: expected a finite number as the score, got {score!r}")
        if document in run.setdefault(query, {}):
            raise UserError(f"{path}:{number}: document {document!r} came for query {query!r} already")
        run[query][document] = value
    return run


def table(systems: Mapping[str, Mapping[str, float]]) -> Table:
    """System -> metric -> mean, as a table to print: metrics x 100 with one decimal, a row for each system."""
    from rich.table import Table

    metrics = list(dict.fromkeys(metric for values in systems.values() for metric in values))
    result = Table("system")
    for metric in metrics:
        result.add_column(metric, justify="right")
    for system, values in systems.items():
        cells = (f"{100 * values[metric]:.1f}" if metric in values else "-" for metric in metrics)
        result.add_row(system, *cells)
    return result


def parse_metric(metric: str) -> tuple[str, int]:
    """(name, cutoff) of "ndcg@10" and its like. Raises UserError for what `per_query` does not know."""
    match = METRIC.fullmatch(metric)
    if match is None:  # trec_eval ends the process on a cutoff of 0
        known = ", ".join(f"{name}@k" for name in (*TREC_EVAL, "mrr"))
        raise UserError(f"unknown metric {metric!r}; expected {known} with k from 1 to 999999, for example ndcg@10")
    return match[1], int(match[2])


def _check_finite(run: Run) -> None:
    for query, scores in run.items():
        for document, score in scores.items():
            if not math.isfinite(score):
                raise UserError(
                    f"the score of document {document!r} for query {query!r} is {score}, not a finite number"
                )


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan

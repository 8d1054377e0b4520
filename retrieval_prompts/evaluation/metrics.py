"""A run and its judgements in, trec_eval's metrics out, for each query or as means. Knows no model and no file."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import numpy as np

from retrieval_prompts.data.judgements import Qrels, Run
from retrieval_prompts.errors import UserError

METRICS = ("ndcg@10", "mrr@10", "map@100", "recall@10", "recall@100")
HEADLINE = METRICS[0]  # chooses prompts, and decides between systems
TREC_EVAL = {  # our name -> theirs
    "ndcg": "ndcg_cut",
    "map": "map_cut",
    "recall": "recall",
    "precision": "P",
    "hit": "success",
}
METRIC = re.compile(rf"({'|'.join(TREC_EVAL)}|mrr)@([1-9][0-9]{{0,5}})", re.ASCII)


def per_query(qrels: Qrels, run: Run, metrics: Sequence[str] = METRICS) -> dict[str, dict[str, float]]:
    """Metric -> query id -> value in [0, 1], for every query of `qrels`; one without an entry in the run scores 0.

    Computed by trec_eval (pytrec_eval, Van Gysel and de Rijke 2018), so ties are broken as it does: score as float32,
    then document id, both descending. A metric is ndcg, mrr, map, recall, precision or hit (1 where any relevant
    document is found), "@" and a cutoff; nDCG has linear gains.

    Raises:
        UserError: for another name, for empty qrels, and for a score that is not a finite number.
    """
    import pytrec_eval

    cutoffs = {metric: parse_metric(metric) for metric in metrics}
    if not qrels:
        raise UserError("there are no judged queries to evaluate on")
    judged = {query: {id: float(score) for id, score in run.get(query, {}).items()} for query in qrels}
    check_finite(judged)
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


def balanced(scores: Mapping[str, float], part: Sequence[str], least: int = 10) -> float:
    """The mean over queries; where at least so many are in a part of them and so many are not, the mean of both means,
    so that neither is bought at the price of the other."""
    apart = set(part)
    if not least <= len(apart) <= len(scores) - least:
        return math.fsum(scores.values()) / len(scores)
    inside = math.fsum(scores[query] for query in apart) / len(apart)
    outside = math.fsum(value for query, value in scores.items() if query not in apart) / (len(scores) - len(apart))
    return (inside + outside) / 2


def best_first(scores: Mapping[str, float]) -> list[tuple[str, float]]:
    """(document id, score) of a query in the order in which trec_eval ranks them; see `per_query`."""
    return sorted(scores.items(), key=lambda item: (np.float32(item[1]), item[0]), reverse=True)


def drop_identical(run: Run) -> Run:
    """The run without documents that carry the id of their query, as BEIR scores ArguAna and Quora."""
    return {query: {id: score for id, score in scores.items() if id != query} for query, scores in run.items()}


def parse_metric(metric: str) -> tuple[str, int]:
    """(name, cutoff) of "ndcg@10" and its like.

    Raises:
        UserError: for what `per_query` does not know.
    """
    match = METRIC.fullmatch(metric)
    if match is None:  # trec_eval ends the process on a cutoff of 0
        known = ", ".join(f"{name}@k" for name in (*TREC_EVAL, "mrr"))
        raise UserError(f"unknown metric {metric!r}; expected {known} with k from 1 to 999999, for example ndcg@10")
    return match[1], int(match[2])


def check_finite(run: Run) -> None:
    for query, scores in run.items():
        for document, score in scores.items():
            if not math.isfinite(score):
                raise UserError(
                    f"the score of document {document!r} for query {query!r} is {score}, not a finite number"
                )

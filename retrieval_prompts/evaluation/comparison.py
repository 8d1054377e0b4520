"""Two runs and their judgements compared query by query, on one data set or several. Knows no model and no file.

Everything is B minus A over the queries of one data set; queries of different data sets are never pooled.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from retrieval_prompts.data.judgements import Qrels, Run
from retrieval_prompts.errors import UserError
from retrieval_prompts.evaluation.metrics import best_first, drop_identical, means, parse_metric, per_query
from retrieval_prompts.evaluation.significance import Comparison, Paired, adjust, compare, paired

ENOUGH_DATASETS = 6  # of 5 differences even the most extreme signs, all alike, have p = 2 / 2**5 > 0.05
TOP = 10  # documents of a query that `Ranking.judged` looks at


@dataclass(frozen=True)
class Ranking:
    """How a run fits its judgements: what is missing, how deep it goes, how much of it was judged.

    Args:
        missing: judged queries without a document in the run; each counts 0.
        strangers: queries of the run without judgements; they are ignored.
        depth: fewest, median and most documents of the judged queries that it has.
        identical: documents dropped because they bear their query's id; `identical_relevant`: those judged relevant.
        judged: share of the documents in the top 10 that have a judgement of any grade.
    """

    missing: int
    strangers: int
    depth: tuple[int, float, int]
    identical: int
    identical_relevant: int
    judged: float


@dataclass(frozen=True)
class Compared:
    """Two runs on one data set.

    Args:
        qrels: the judgements that count: those of queries with a relevant document.
        without_relevant: judged queries that have none; they are left out.
        negatives: judgements with a grade of 0 or less. Without any, "judged" says no more than "relevant".
        runs: A and B as they were scored.
        scores: of A and B: metric -> query -> value.
    """

    qrels: Qrels
    without_relevant: int
    negatives: int
    runs: tuple[Run, Run]
    rankings: tuple[Ranking, Ranking]
    scores: tuple[dict[str, dict[str, float]], dict[str, dict[str, float]]]
    metrics: dict[str, Paired]


@dataclass(frozen=True)
class Average:
    """The mean over data sets, each counting the same; `test` pairs the data sets, None where they are too few."""

    datasets: int
    a: float
    b: float
    better: int  # data sets on which B is better than A
    test: Comparison | None

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "test": self.test.as_dict() if self.test else None}


def compare_runs(
    qrels: Qrels,
    a: Run,
    b: Run,
    metrics: Sequence[str],
    *,
    keep_identical: bool = False,
    resamples: int = 10_000,
    seed: int = 0,
) -> Compared:
    """Score two runs on the same judgements and compare them query by query.

    Every query with a relevant document counts, also one that a run does not have. Documents with their query's own id
    are dropped, as BEIR does, unless `keep_identical`.

    Raises:
        UserError: for an unknown metric, for judgements without a relevant document, and for a run that has none of the
            judged queries.
    """
    for metric in metrics:
        parse_metric(metric)
    relevant = {query: grades for query, grades in qrels.items() if any(grade > 0 for grade in grades.values())}
    if not relevant:
        raise UserError(f"none of the {len(qrels)} judged queries has a relevant document (a grade above 0)")
    rankings = [_ranking(name, qrels, relevant, run, keep_identical) for name, run in (("A", a), ("B", b))]
    runs = [drop_identical(run) if each.identical else run for run, each in zip((a, b), rankings, strict=True)]
    scores = [per_query(relevant, run, metrics) for run in runs]
    results = {metric: paired(scores[0][metric], scores[1][metric], metric, resamples, seed) for metric in metrics}
    if negatives := sum(grade <= 0 for grades in relevant.values() for grade in grades.values()):
        judged = [means(per_query(relevant, _condensed(relevant, run), metrics)) for run in runs]
        results = {
            metric: replace(result, judged_only=judged[1][metric] - judged[0][metric])
            for metric, result in results.items()
        }
    return Compared(
        qrels=relevant,
        without_relevant=len(qrels) - len(relevant),
        negatives=negatives,
        runs=(runs[0], runs[1]),
        rankings=(rankings[0], rankings[1]),
        scores=(scores[0], scores[1]),
        metrics=results,
    )


def corrected(compared: Mapping[str, Compared], correction: str) -> dict[str, Compared]:
    """Data set -> comparison, with p-values adjusted over the data sets, for each metric by itself.

    A single data set, and the correction "none", leave them as they are.
    """
    result = dict(compared)
    if correction == "none" or len(compared) < 2:
        return result
    for metric in next(iter(compared.values())).metrics:
        p_values = adjust([each.metrics[metric].test.p_value for each in compared.values()], correction)
        for (name, each), p in zip(list(result.items()), p_values, strict=True):
            metrics = {**each.metrics, metric: replace(each.metrics[metric], p_adjusted=p)}
            result[name] = replace(each, metrics=metrics)
    return result


def average(compared: Mapping[str, Compared], metric: str, resamples: int = 10_000, seed: int = 0) -> Average:
    """The mean of a metric over data sets, and from 6 data sets on a test that pairs the data sets, not the queries."""
    a = {name: each.metrics[metric].a for name, each in compared.items()}
    b = {name: each.metrics[metric].b for name, each in compared.items()}
    return Average(
        datasets=len(compared),
        a=math.fsum(a.values()) / len(a),
        b=math.fsum(b.values()) / len(b),
        better=sum(b[name] > a[name] for name in a),
        test=compare(a, b, metric, resamples, seed) if len(a) >= ENOUGH_DATASETS else None,
    )


def _ranking(name: str, qrels: Qrels, relevant: Qrels, run: Run, keep_identical: bool) -> Ranking:
    own = [] if keep_identical else [query for query in relevant if query in run.get(query, {})]
    kept = {query: run[query] for query in relevant if query in run}
    if own:
        kept = drop_identical(kept)
    depths = sorted(len(scores) for scores in kept.values() if scores)
    if not depths:
        raise UserError(
            f"run {name} has none of the {len(relevant)} judged queries; are its ids those of the judgements?"
        )
    top = {query: best_first(scores)[:TOP] for query, scores in kept.items()}
    judged = [id in relevant[query] for query, hits in top.items() for id, _ in hits]
    return Ranking(
        missing=len(relevant) - len(depths),
        strangers=len(run.keys() - qrels.keys()),
        depth=(depths[0], statistics.median(depths), depths[-1]),
        identical=len(own),
        identical_relevant=sum(relevant[query].get(query, 0) > 0 for query in own),
        judged=sum(judged) / len(judged),
    )


def _condensed(qrels: Qrels, run: Run) -> Run:
    return {
        query: {id: score for id, score in run[query].items() if id in grades}
        for query, grades in qrels.items()
        if query in run
    }

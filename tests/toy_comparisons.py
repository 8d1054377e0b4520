"""Pairs of systems whose scores are given, and runs on judgements where a ranking is right or wrong."""

from __future__ import annotations

from collections.abc import Iterable

from retrieval_prompts.data.judgements import Qrels, Run
from retrieval_prompts.evaluation.comparison import Compared, compare_runs
from retrieval_prompts.evaluation.significance import Paired, paired


def values(numbers: Iterable[float]) -> dict[str, float]:
    return {f"q{i}": float(number) for i, number in enumerate(numbers)}


def one_pair(before: Iterable[float], after: Iterable[float], resamples: int = 999) -> Paired:
    return paired(values(before), values(after), "ndcg@10", resamples)


def judged(queries: int) -> Qrels:
    return {f"q{i}": {"yes": 1, "no": 0} for i in range(queries)}


def answers(queries: int, right: int) -> Run:
    """The relevant document comes first for so many queries, else second."""
    return {f"q{i}": {"yes": 1.0, "no": 0.0 if i < right else 2.0} for i in range(queries)}


def on(datasets: dict[str, int], **options: int) -> dict[str, Compared]:
    return {
        name: compare_runs(judged(30), answers(30, 10), answers(30, right), ["mrr@10", "ndcg@10"], resamples=999)
        for name, right in datasets.items()
    }

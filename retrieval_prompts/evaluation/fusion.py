"""Runs in, one run out: reciprocal rank fusion. Knows no model and no score but the ranks that scores give."""

from __future__ import annotations

from collections.abc import Sequence

from retrieval_prompts.data.judgements import Run
from retrieval_prompts.errors import UserError
from retrieval_prompts.evaluation.metrics import best_first


def reciprocal_rank_fusion(runs: Sequence[Run], k: int, constant: int = 60) -> Run:
    """The k best documents of each query by the sum over runs of 1 / (constant + rank), rank from 1.

    Cormack, Clarke and Büttcher 2009, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank Learning
    Methods"; 60 is theirs. A run that lacks a document or a query adds nothing to it. Equal scores stand as trec_eval
    sorts them, here and in the result: by document id, descending.

    Raises:
        UserError: for no runs, k < 1 and a constant below 0.
    """
    if not runs:
        raise UserError("fusing needs at least one run, got none")
    if k < 1:
        raise UserError(f"k must be at least 1, got {k}")
    if constant < 0:
        raise UserError(f"the constant of reciprocal rank fusion must be 0 or more, got {constant}")
    fused: Run = {}
    for query in dict.fromkeys(query for run in runs for query in run):
        scores: dict[str, float] = {}
        for run in runs:
            for rank, (document, _) in enumerate(best_first(run.get(query, {})), 1):
                scores[document] = scores.get(document, 0.0) + 1 / (constant + rank)
        fused[query] = dict(best_first(scores)[:k])
    return fused

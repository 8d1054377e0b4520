"""The recommendation of an experiment: what dev chose, or the best of what was run, with what it gains and costs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from itertools import islice
from statistics import fmean, median

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.evaluation.hybrid import UNLABELLED, HybridIndex
from retrieval_prompts.evaluation.metrics import HEADLINE
from retrieval_prompts.evaluation.recommendation import Evidence, Recommendation, recommend
from retrieval_prompts.evaluation.significance import ALPHA, Comparison, compare
from retrieval_prompts.experiments.selection.choice import PART, Choice, at, frozen_grid, frozen_weight
from retrieval_prompts.experiments.workbench import Workbench, strongest_untuned
from retrieval_prompts.vectors.index import Index

TIMED = 20  # queries whose time is taken, one after another


def frozen_bm25_weight(bench: Workbench, split: str, choice: Choice | None = None) -> float:
    """The weight of BM25 beside the frozen model: what dev chose, or the safe one.

    Args:
        split: is not chosen by.
        choice: of the training, where there was one.
    """
    if choice is not None:
        return UNLABELLED if choice.frozen_weight is None else choice.frozen_weight
    queries, qrels = bench.choosing(split)
    hybrid = bench.hybrid_of(bench.index)
    grid = frozen_grid(hybrid, bench, queries, qrels) if queries and hybrid is not None else {}
    return frozen_weight(at(grid, 0.0))


def tuned_bm25_weight(biencoder: BiEncoder) -> float:
    """The weight of BM25 beside prompts: their own, or the safe one."""
    return UNLABELLED if biencoder.bm25_weight is None else biencoder.bm25_weight


def by_dev(choice: Choice) -> Recommendation:
    """What dev chose, where nothing else was evaluated."""
    return recommend(
        choice.system,
        strength=choice.strength,
        bm25_weight=choice.weight,
        gain=Evidence(choice.gain, choice.how),
        milliseconds={},
        prompts=Evidence(choice.best_vs_untuned, _why(choice)),
    )


def by_evaluation(
    biencoder: BiEncoder,
    bench: Workbench,
    split: str,
    scores: Mapping[str, Mapping[str, float]],
    weights: Mapping[str, float],
    choice: Choice | None,
) -> Recommendation:
    """What dev chose, with what it gains on a split: on queries with unseen documents, where there are enough.

    Without a choice by dev, see `_best`.

    Args:
        scores: system -> query -> nDCG@10.
        weights: of BM25 beside the frozen model, and beside the prompts.
    """
    system, prompts = (choice.system, choice.best_vs_untuned) if choice is not None else _best(scores)
    if system not in scores:
        system = "frozen"
    unseen = bench.unseen_queries(split)
    part = unseen if PART <= len(unseen) < len(scores["frozen"]) else list(scores["frozen"])
    basis = split if len(part) == len(scores["frozen"]) else f"{split}, unseen documents"
    before, after = ({query: scores[each][query] for query in part} for each in ("frozen", system))
    gain = Evidence(compare(before, after, HEADLINE) if system != "frozen" else None, basis)
    for other in ["frozen"] + [strongest_untuned(scores)] * ("tuned" in system):
        # A loss on all queries is one as well, and so is that of prompts against what needs no training
        if gain.test is not None and not _harmful(gain.test):
            whole = compare(scores[other], scores[system], HEADLINE)
            gain = Evidence(whole, split, other) if _harmful(whole) else gain
    return recommend(
        system,
        strength=biencoder.strength if "tuned" in system else 0.0,
        bm25_weight=weights.get("tuned" if "tuned" in system else "frozen"),
        gain=gain,
        milliseconds=_milliseconds(biencoder, bench, split, system, weights),
        prompts=Evidence(prompts, _why(choice) if choice is not None else split if prompts is not None else ""),
        tried=bool(biencoder.prompts),
    )


def _best(scores: Mapping[str, Mapping[str, float]]) -> tuple[str, Comparison | None]:
    """The prompts where they are surely better than all that needs no training; else BM25 beside the frozen model,
    where nothing simpler is surely better than that."""
    untuned = strongest_untuned(scores)
    if untuned != "frozen+bm25" and "frozen+bm25" in scores:
        simpler = compare(scores["frozen+bm25"], scores[untuned], HEADLINE)
        untuned = untuned if simpler.p_value < ALPHA else "frozen+bm25"
    with_prompts = [system for system in ("tuned", "tuned+bm25") if system in scores]
    if not with_prompts:
        return untuned, None
    best = max(with_prompts, key=lambda system: fmean(scores[system].values()))
    test = compare(scores[untuned], scores[best], HEADLINE)
    return (best if test.difference > 0 and test.p_value < ALPHA else untuned), test


def _harmful(gain: Comparison) -> bool:
    return gain.difference < 0 and gain.p_value < ALPHA


def _why(choice: Choice) -> str:
    """The queries that chose, or why none did."""
    if choice.best_vs_untuned is not None:
        return choice.how
    return choice.remarks[-1] if choice.remarks else "no prompt was tried"


def _milliseconds(
    biencoder: BiEncoder, bench: Workbench, split: str, system: str, weights: Mapping[str, float]
) -> dict[str, float]:
    """The median time of a query, encoding and search, of the frozen model and of a system."""
    texts = list(islice(bench.dataset.split(split)[0].values(), TIMED))
    found = {"frozen": _timed(bench.frozen, bench.index, texts, None)}
    encoder, name = (biencoder, "tuned") if "tuned" in system else (bench.frozen, "frozen")
    index = bench.index_for(encoder)
    if system not in ("frozen", "bm25"):
        hybrid = bench.hybrid_of(index) if "bm25" in system else None
        weight = weights.get(name, 0.0)
        found[system] = _timed(encoder, hybrid or index, texts, weight)
    return found


def _timed(encoder: BiEncoder, index: Index | HybridIndex, texts: list[str], weight: float | None) -> float:
    seconds = []
    for text in texts:
        start = time.perf_counter()
        vector = encoder.query_vectors([text])
        if isinstance(index, HybridIndex):
            index.search([text], vector, 10, weight=weight or 0.0)
        else:
            index.search(vector, 10)
        seconds.append(time.perf_counter() - start)
    return round(1000 * median(seconds), 2)

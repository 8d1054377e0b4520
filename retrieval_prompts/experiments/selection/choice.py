"""What to use, by queries that were set aside: the strength of prompts, the weight of BM25, and whether either helps.

A choice by few queries takes what is known to be safe unless they surely say otherwise: the weight that was never worse
on any collection tried, the whole prompt (which can be exported), and no prompts at all, which have to pass a paired
test: the best of many is not better for that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.data.judgements import Qrels, Run
from retrieval_prompts.evaluation.hybrid import UNLABELLED, WEIGHTS, HybridIndex
from retrieval_prompts.evaluation.metrics import HEADLINE, balanced, per_query
from retrieval_prompts.evaluation.significance import ALPHA, Comparison, compare
from retrieval_prompts.experiments.workbench import Workbench
from retrieval_prompts.prompts.strength import between
from retrieval_prompts.vectors.index import Index

STRENGTHS = (0.25, 0.5, 0.75, 1.0)
MADE_STRENGTH = 0.5  # of prompts that learned from made queries, which are only somewhat like people's (eval/README.md)
TESTS = ("tuned_vs_frozen", "best_vs_untuned", "gain")  # fields of a choice
PART = 10  # queries from which on a part of them has a say of its own

Scores = dict[str, float]  # query -> nDCG@10
Grid = dict[tuple[float, float], Scores]  # (strength, weight of BM25) -> scores; strength 0 is the frozen model


@dataclass(frozen=True)
class Choice:
    """What the queries that were set aside say.

    Args:
        system: what to use: "frozen", "frozen+bm25", "tuned" or "tuned+bm25".
        strength: of the prompts; 0 where they are not better than the frozen model.
        weight, frozen_weight: of BM25 in a search with these prompts, and with the frozen model; 0 where it is better
            left out, None where there was none.
        how: "dev split", "held out of train" or "cross-validation".
        queries, unseen: how many there are, and how many of them ask for documents that training has not seen.
        systems: system -> mean nDCG@10 over all of them, and "unseen": over those.
        tuned_vs_frozen: the prompts alone against the frozen model.
        best_vs_untuned: the better row with prompts against the better row without; decides on the prompts.
        gain: the chosen system against the frozen model.
        curve: (strength, mean nDCG@10 of the prompts alone), from 0 to 1.
        remarks: what was to be known before training.
    """

    system: str
    strength: float
    weight: float | None
    frozen_weight: float | None
    how: str
    queries: int
    unseen: int
    systems: dict[str, dict[str, float]]
    tuned_vs_frozen: Comparison | None = None
    best_vs_untuned: Comparison | None = None
    gain: Comparison | None = None
    curve: list[tuple[float, float]] = field(default_factory=list)
    remarks: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Every field by its name; a test as `Comparison.as_dict` has it."""
        found = {name: getattr(self, name) for name in TESTS}
        return {**vars(self), **{name: test.as_dict() if test else None for name, test in found.items()}}

    @classmethod
    def recorded(cls, record: Mapping[str, Any], corpus: str) -> Choice | None:
        """The choice in the record of prompts that were tuned on this corpus (its fingerprint); None where there is
        none."""
        found = record.get("choice")
        if record.get("corpus") != corpus or not isinstance(found, Mapping):
            return None
        try:
            tests = {name: Comparison.from_dict(found[name]) if found[name] else None for name in TESTS}
            return cls(**{**found, **tests})
        except (KeyError, TypeError, ValueError):
            return None


def frozen_weight(scores: Mapping[float, Scores]) -> float:
    """The weight of BM25 beside the frozen model: the safe one, unless these queries surely say otherwise.

    Args:
        scores: weight -> query -> nDCG@10; none without judged queries.
    """
    if not scores:
        return UNLABELLED
    return _surely({weight: scores[weight] for weight in WEIGHTS}, UNLABELLED)


def decide(grid: Grid, unseen: Sequence[str], *, made: bool = False, **about: Any) -> Choice:
    """Choose by scores of the same queries under every strength and weight.

    Args:
        grid: at least strength 0. Weights are `WEIGHTS`, or 0 alone.
        unseen: the queries that ask for documents which training has not seen.
        made: the queries were made, not asked by people: they do not choose the weight of BM25, and prompts are taken
            at half their strength unless they surely say otherwise.
        about: the fields "how" and "remarks" of the result.
    """
    queries = list(grid[0.0, 0.0])
    lexical = (0.0, UNLABELLED) in grid
    base = frozen_weight(at(grid, 0.0) if not made else {}) if lexical else 0.0
    untuned = max((0.0, base), key=lambda weight: balanced(grid[0.0, weight], unseen))
    strengths = sorted({strength for strength, _ in grid} - {0.0})
    systems = {"frozen": (0.0, 0.0)} | ({"frozen+bm25": (0.0, base)} if lexical else {})
    found: dict[str, Any] = {"system": "frozen+bm25" if base > 0 else "frozen", "strength": 0.0}
    if strengths:
        prior = MADE_STRENGTH if made and MADE_STRENGTH in strengths else 1.0
        alone = _surely({strength: grid[strength, 0.0] for strength in strengths}, prior)
        weight = _surely(at(grid, alone), base) if not made else base
        best, fused = (alone, weight), weight > 0
        test = compare(grid[0.0, untuned], grid[best], HEADLINE)
        dense = compare(grid[0.0, 0.0], grid[alone, 0.0], HEADLINE)
        found |= {"best_vs_untuned": test, "tuned_vs_frozen": dense}
        if _better(test, grid[0.0, untuned], grid[best], unseen):
            found |= {"system": "tuned+bm25" if fused else "tuned", "strength": best[0]}
        elif _better(dense, grid[0.0, 0.0], grid[alone, 0.0], unseen):
            found |= {"strength": alone}
        strength = found["strength"] or alone
        systems |= {"tuned": (strength, 0.0)} | ({"tuned+bm25": (strength, weight)} if lexical else {})
        found |= {"curve": [(each, _mean(grid[each, 0.0])) for each in (0.0, *strengths)]}
        beside = {"tuned": 0.0, "tuned+bm25": weight}.get(found["system"], weight if found["strength"] else base)
        found |= {"weight": beside} if lexical else {}
    means = {
        system: {"all": _mean(grid[key])} | ({"unseen": _mean(grid[key], unseen)} if unseen else {})
        for system, key in systems.items()
    }
    if (chosen := systems[found["system"]]) != (0.0, 0.0):
        found |= {"gain": compare(grid[0.0, 0.0], grid[chosen], HEADLINE)}
    sure = {"weight": base if lexical else None, "frozen_weight": base if lexical else None}
    return Choice(**{**sure, **found, **about, "queries": len(queries), "unseen": len(unseen), "systems": means})


def scores_of(grid: Grid, choice: Choice) -> Scores:
    """The scores of the system that was chosen."""
    weight = choice.weight if "tuned" in choice.system else choice.frozen_weight
    strength = choice.strength if "tuned" in choice.system else 0.0
    return grid[strength, (weight or 0.0) if "bm25" in choice.system else 0.0]


def frozen_grid(hybrid: HybridIndex | Index, bench: Workbench, queries: dict[str, str], qrels: Qrels) -> Grid:
    """The frozen model's scores with every weight of BM25; with weight 0 alone where the index holds no words."""
    vectors = bench.tower.comparable(bench.frozen_queries(queries.values()))
    return _scores(hybrid, 0.0, vectors, queries, qrels)


def tuned_grid(
    hybrid: HybridIndex | Index, bench: Workbench, biencoder: BiEncoder, queries: dict[str, str], qrels: Qrels
) -> Grid:
    """The scores of the prompts with every strength and weight; a document prompt is whole or not at all.

    Args:
        hybrid: over the documents of this bi-encoder.
    """
    tower = biencoder.tower
    whole = bench.bind(biencoder).whole().encode_query(list(queries.values()))
    if "document" in biencoder.prompts:
        return _scores(hybrid, 1.0, tower.comparable(whole), queries, qrels)
    frozen, grid = bench.frozen_queries(queries.values()), Grid()
    for strength in STRENGTHS:
        point = whole if strength == 1 else between(frozen, whole, strength, unit=tower.unit_length)
        grid |= _scores(hybrid, strength, tower.comparable(point), queries, qrels)
    return grid


def at(grid: Grid, strength: float) -> dict[float, Scores]:
    """Weight -> scores, of one strength."""
    return {weight: scores for (each, weight), scores in grid.items() if each == strength}


def _surely(scores: Mapping[float, Scores], prior: float) -> float:
    """The best of several values, where the queries tell it from the `prior` one; else that."""
    best = max(scores, key=lambda value: _mean(scores[value]))
    test = compare(scores[prior], scores[best], HEADLINE)
    return best if test.difference > 0 and test.p_value < ALPHA else prior


def _better(test: Comparison, before: Scores, after: Scores, unseen: Sequence[str]) -> bool:
    """Surely better on all queries, and not worse on those whose documents training has not seen."""
    sure = test.difference > 0 and test.p_value < ALPHA
    return sure and (len(unseen) < PART or _mean(after, unseen) >= _mean(before, unseen))


def _scores(hybrid: HybridIndex | Index, strength: float, vectors: Any, queries: dict[str, str], qrels: Qrels) -> Grid:
    index = hybrid.index if isinstance(hybrid, HybridIndex) else hybrid
    runs: list[Run] = [index.rank(list(queries), vectors, 10)]
    if isinstance(hybrid, HybridIndex):
        runs += hybrid.rank(queries, vectors, 10, WEIGHTS[1:])
    return {
        (strength, weight): per_query(qrels, run, [HEADLINE])[HEADLINE]
        for weight, run in zip(WEIGHTS, runs, strict=False)
    }


def _mean(scores: Mapping[str, float], queries: Sequence[str] | None = None) -> float:
    return float(np.mean([scores[query] for query in (scores if queries is None else queries)]))

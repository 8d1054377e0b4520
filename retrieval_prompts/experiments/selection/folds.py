"""Few queries: prompts are judged by cross-validation, and then trained on all of them.

A part of the queries is set aside, prompts are trained on the rest, and what they make of that part is kept; so every
query is judged once by prompts that never saw it. No fold chooses by the queries that it is judged on: its prompts are
those of the last step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.evaluation.hybrid import HybridIndex
from retrieval_prompts.evaluation.metrics import balanced
from retrieval_prompts.experiments.selection.choice import Grid, tuned_grid
from retrieval_prompts.experiments.workbench import Workbench
from retrieval_prompts.training.loop import Step
from retrieval_prompts.training.settings import TuneSettings
from retrieval_prompts.vectors.index import Index

TRIED = 2  # folds after which prompts that have not helped with any strength or weight are given up


@dataclass
class Judged:
    """What cross-validation found.

    Args:
        grid: the scores of prompts that never saw the query, for every strength and weight.
        unseen: queries that ask for documents which the training of their fold had not seen.
        steps: of all folds.
        given_up: after how many folds, where nothing had helped until then.
    """

    grid: Grid = field(default_factory=dict)
    unseen: list[str] = field(default_factory=list)
    steps: int = 0
    given_up: int | None = None


def cross_validate(
    bench: Workbench,
    settings: TuneSettings,
    hybrid: HybridIndex | Index,
    frozen: Grid,
    *,
    checkpoint: Path | None = None,
    on_step: Callable[[Step], object] | None = None,
) -> Judged:
    """Train once for each fold, and judge the fold's queries.

    Args:
        hybrid: over the frozen documents.
        frozen: the frozen model's scores of the same queries.
        checkpoint: each fold keeps its state in a file of its own beside it, so that it goes on where it was.
        on_step: called with steps that are counted through all folds.
    """
    data = bench.training
    judged, folds = Judged(), list(data.folds(settings.folds))
    for number, fold in enumerate(folds):
        biencoder = bench.attach(BiEncoder(bench.tower), settings)
        place = checkpoint.with_name(f"{checkpoint.name}.fold{number}") if checkpoint is not None else None
        training = bench.train(biencoder, replace(fold, dev={}), settings, place)
        for step in training:
            if on_step is not None:
                on_step(replace(step, step=judged.steps + step.step))
        judged.steps += training.total  # also those of a run before this one
        queries = {query: data.queries[query] for query in fold.dev}
        for key, scores in tuned_grid(hybrid, bench, biencoder, queries, fold.dev).items():
            judged.grid.setdefault(key, {}).update(scores)
        judged.unseen += fold.unseen()
        if number + 1 == TRIED < len(folds) and not _helped(judged, frozen):
            judged.given_up = number + 1
            break
    return judged


def _helped(judged: Judged, frozen: Grid) -> bool:
    """Whether prompts of some strength did better than the frozen model, alone or beside BM25, so far."""
    tried = next(iter(judged.grid.values())).keys()

    def best(grid: Grid, alone: bool) -> float:
        rows = [scores for (_, weight), scores in grid.items() if weight == 0 or not alone]
        return max(balanced({query: scores[query] for query in tried}, judged.unseen) for scores in rows)

    return any(best(judged.grid, alone) > best(frozen, alone) for alone in (True, False))

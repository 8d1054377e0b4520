"""Prompts trained, and the choice of how much of them to use."""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.errors import DataWarning
from retrieval_prompts.evaluation.hybrid import UNLABELLED, HybridIndex
from retrieval_prompts.experiments.pairs.made import BM25, JUDGED
from retrieval_prompts.experiments.run import PromptOutput
from retrieval_prompts.experiments.selection.choice import (
    Choice,
    Grid,
    Scores,
    decide,
    frozen_grid,
    scores_of,
    tuned_grid,
)
from retrieval_prompts.experiments.selection.folds import cross_validate
from retrieval_prompts.experiments.workbench import Workbench
from retrieval_prompts.training.doubts import doubts
from retrieval_prompts.training.loop import Step
from retrieval_prompts.training.plan import query_steps
from retrieval_prompts.training.retrieval import run_identity
from retrieval_prompts.training.settings import TuneSettings
from retrieval_prompts.vectors.index import Index

DEVIATION = 0.25  # of differences between two systems over queries, where nothing is at hand to take it from
TAUGHT = (
    "prompts learned the ranking of the frozen model with BM25, so no query here says what they add to it; on other "
    "collections they added to it"
)
NOTHING = "no prompt of any fold had helped: training ended"


@dataclass
class Trained:
    """Prompts, trained in the bi-encoder that was given, and what dev says of them. `steps`: of their training."""

    choice: Choice
    steps: list[Step] = field(default_factory=list)
    scores: Scores = field(default_factory=dict)  # of what was chosen; none where training was given up in the folds

    @classmethod
    def of(
        cls,
        biencoder: BiEncoder,
        bench: Workbench,
        settings: TuneSettings,
        output: PromptOutput,
        *,
        bm25: bool = True,
        on_step: Callable[[Step, int], object] | None = None,
    ) -> Trained:
        """Train the prompts that are attached to `biencoder`, and choose. See `experiments.retrieval.tune`."""
        return _Training(biencoder, bench, settings, output, bm25, on_step).run()


class _Training:
    """What the parts of a training share."""

    def __init__(
        self,
        biencoder: BiEncoder,
        bench: Workbench,
        settings: TuneSettings,
        output: PromptOutput,
        bm25: bool,
        on_step: Callable[[Step, int], object] | None,
    ) -> None:
        self.biencoder, self.bench, self.settings, self.output = biencoder, bench, settings, output
        self.on_step, self.bm25, self.data = on_step, bm25, bench.training
        # Folds would have to encode the corpus anew, each with its own document prompt
        foldable = "document" not in biencoder.prompts and bench.made is None
        self.folded = self.data.few and settings.folds > 1 and foldable
        self.qrels = self.data.judged if self.folded else self.data.dev
        self.queries = {query: self.data.queries[query] for query in self.qrels}
        trainings = [*self.data.folds(settings.folds), self.data.whole()] if self.folded else []
        self.total = sum(
            query_steps(settings, each.train, each.corpus.first_of) for each in trainings
        )  # without folds: the training knows

    def run(self) -> Trained:
        index = self._searched(self.bench.index)
        frozen = frozen_grid(index, self.bench, self.queries, self.qrels)
        found = doubts(self.data, frozen[0.0, 0.0], _deviation(frozen))
        for remark in found.remarks:
            warnings.warn(f"{self.bench.dataset.name}: {remark}", DataWarning, stacklevel=5)
        if found.hopeless:
            return Trained(self._decide(frozen, [], found.remarks))
        identity = run_identity(self.biencoder, self.data, self.settings) if self.output.folder is not None else ""
        # What a fold has learned is nobody's prompt, so there is none to keep where one diverges
        with self.output.checkpoint(identity, good=None if self.folded else self.biencoder.save) as checkpoint:
            if not self.folded:
                steps = self._train(checkpoint, 0)
                grid = self._grid(frozen)
                choice = self._decide(grid, self.data.unseen(), found.remarks)
                return Trained(choice, steps, scores_of(grid, choice))
            judged = cross_validate(
                self.bench,
                self.settings,
                index,
                frozen,
                checkpoint=checkpoint,
                on_step=self._report,
            )
            if judged.given_up is not None:
                remarks = (*found.remarks, NOTHING)
                return Trained(self._decide(frozen, [], remarks))
            grid = frozen | judged.grid
            choice = self._decide(grid, judged.unseen, found.remarks)
            steps = self._train(checkpoint, judged.steps) if choice.strength > 0 else []
            return Trained(choice, steps, scores_of(grid, choice))

    def _decide(self, grid: Grid, unseen: list[str], remarks: tuple[str, ...]) -> Choice:
        """What made queries share with documents is not what people's do: they do not choose the weight of BM25."""
        how = "cross-validation" if self.folded else "held out of train" if self.data.held_out else "dev split"
        if (made := self.bench.made) is not None:
            how = made.choosing
        choice = decide(grid, unseen, made=made is not None and made.judge != JUDGED, how=how, remarks=remarks)
        if made is not None and made.judge == BM25:
            # Of BM25 beside prompts it can say nothing; what is known of other collections can (eval/README.md)
            fused = choice.strength > 0 and self.biencoder.feedback is not None and choice.weight is not None
            system = "tuned+bm25" if fused else choice.system
            return replace(choice, system=system, gain=None, best_vs_untuned=None, remarks=(*remarks, TAUGHT))
        return choice

    def _train(self, checkpoint: Any, before: int) -> list[Step]:
        data = self.data.whole() if self.folded else self.data
        training = self.bench.train(self.biencoder, data, self.settings, checkpoint)
        self.total = self.total or training.total
        for step in training:
            self._report(replace(step, step=step.step + before))
        return training.steps

    def _report(self, step: Step) -> None:
        if self.on_step is not None:
            self.on_step(step, self.total)

    def _grid(self, frozen: Grid) -> Grid:
        """The scores to choose by. With a document prompt, documents are encoded where a sample of them gave hope."""
        biencoder, grid = self.biencoder, dict(frozen)
        if "document" not in biencoder.prompts:
            grid |= tuned_grid(self._searched(self.bench.index), self.bench, biencoder, self.queries, self.qrels)
        elif biencoder.strength > 0:
            index = self._searched(self.bench.index_for(biencoder))
            grid |= tuned_grid(index, self.bench, biencoder, self.queries, self.qrels)
        return grid

    def _searched(self, index: Index) -> HybridIndex | Index:
        return (self.bench.hybrid_of(index) if self.bm25 else None) or index


def _deviation(frozen: Grid) -> float:
    """Of the differences that BM25 beside the frozen model makes; prompts make some of the same size."""
    if (0.0, UNLABELLED) not in frozen or len(frozen[0.0, 0.0]) < 2:
        return DEVIATION
    before, after = frozen[0.0, 0.0], frozen[0.0, UNLABELLED]
    return statistics.stdev(after[query] - before[query] for query in before) or DEVIATION

"""Tune the prompts of a bi-encoder on a data set: what a training step compares, and how dev is scored.

A side without a prompt is a constant: its vectors are computed once, cached, and looked up. So with the query side
alone, each query is compared with the whole corpus at the price of a matrix product. A document prompt changes every
document; a step then encodes anew those that matter most to its queries: one that is relevant to each, and wrong
answers of the model as it is.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.data.groups import drop_own
from retrieval_prompts.errors import UserError
from retrieval_prompts.evaluation.first_pass import FirstPass
from retrieval_prompts.evaluation.hybrid import HybridIndex
from retrieval_prompts.evaluation.metrics import HEADLINE, balanced, per_query
from retrieval_prompts.evaluation.significance import ALPHA, compare
from retrieval_prompts.prompts.encoders import PromptTable
from retrieval_prompts.training import passages
from retrieval_prompts.training.keeping.keep import frozen_vectors, keeping
from retrieval_prompts.training.loop import LoopSettings, Step, Training, fit
from retrieval_prompts.training.losses import distillation, info_nce, symmetric_info_nce
from retrieval_prompts.training.plan import Batch, Plan, learnable, length
from retrieval_prompts.training.settings import TuneSettings
from retrieval_prompts.training.task import Positions, fast_bfloat16, parts
from retrieval_prompts.training.task import Task as BaseTask
from retrieval_prompts.training.teacher import Taught
from retrieval_prompts.training.training_data import TrainingData
from retrieval_prompts.vectors.blocks import VectorBlocks
from retrieval_prompts.vectors.index import Index

GIVE_UP: float | None = 1 / 3  # of a training: without a dev score above the frozen model's by then, it ends
MINED = 50  # wrong answers a query that hard negatives are drawn from
RANDOM = 2048  # random documents a step where the corpus is beyond the memory budget
LEFT_OUT = -1e4  # the score of a document that does not count; finite, so that its gradient is zero and not NaN
SAVING_TOKENS = 20_000  # above this many tokens a step, activations are recomputed instead of kept


def train(
    biencoder: BiEncoder,
    data: TrainingData,
    settings: TuneSettings,
    *,
    documents: VectorBlocks,
    index: Index | HybridIndex | None = None,
    checkpoint: Path | None = None,
) -> Training:
    """Train the prompts that are attached to `biencoder`, as the result is iterated (see `loop.Training`).

    Afterwards the bi-encoder holds the prompts with the best dev nDCG@10; the last ones where there is no dev query.
    Where none beats the frozen model there, its strength is 0, which is the frozen model. With prompts on both sides
    the query side is trained first, alone, against the frozen documents; then both. A document prompt has to earn the
    encoding of the whole corpus: it is dropped unless dev is significantly better with it than with the query prompt
    of the first stage.

    A training is given up when no dev score beats the frozen model's in its first third. With two stages that is asked
    of the first alone: the second is short, and may help where the first did not.

    Args:
        documents: the corpus's frozen vectors; `index`: over them, where there is one already; with the words of the
            documents, where a prompt is to read what BM25 finds.
        checkpoint: a file; a second stage keeps its own beside it (see `checkpoints`).

    Raises:
        UserError: when there is no query to train on, or training diverges.
    """
    return _Stages(Task(biencoder, data, settings, documents, index), checkpoint)


class _Stages(Training):
    """Stage after stage; then the choice by dev, and the record of it."""

    SMALLER = "--memory"  # what is not a step is the corpus's vectors

    def __init__(self, task: Task, checkpoint: Path | None) -> None:
        prompts = task.biencoder.prompts
        # A common part would change the documents while the query side is trained alone
        alone_first = {"query", "document"} <= set(prompts) and not task.settings.common
        self.task, self.checkpoint = task, checkpoint
        self.stages: list[Training] = []
        self.plans = [task.plan(fresh) for fresh in ([False, True] if alone_first else ["document" in prompts])]
        super().__init__(self._run(), [], sum(plan.epochs * plan.steps for plan in self.plans))

    def _run(self) -> Iterator[Step]:
        task, biencoder, before = self.task, self.task.biencoder, 0
        alone: BiEncoder | None = None
        identity = run_identity(biencoder, task.data, task.settings)
        for number, plan in enumerate(self.plans):
            module = biencoder.prompts if number == len(self.plans) - 1 else biencoder.prompts["query"]
            if number == 1:
                alone = BiEncoder(
                    biencoder.tower, biencoder.kind, {"query": PromptTable(biencoder.prompts["query"]().detach())}
                )
            stage = fit(
                module,
                plan.batches,
                task.loss(plan.fresh),
                partial(task.dev_mean, biencoder, plan.fresh) if task.data.dev else None,
                task.loop(plan, give_up=None if number else GIVE_UP),
                checkpoint=checkpoints(self.checkpoint)[number] if self.checkpoint is not None else None,
                identity=[identity, number],
            )
            self.stages.append(stage)
            self.steps += [replace(step, step=step.step + before) for step in stage.steps]
            for step in stage:
                self.steps.append(replace(step, step=step.step + before))
                yield self.steps[-1]
            before += plan.epochs * plan.steps
        self._choose(identity, alone)
        ended = [{"step": stage.steps[-1].step, "of": stage.total} for stage in self.stages]
        biencoder.training_record |= {"given_up": self.given_up, "stages": ended}

    @property
    def given_up(self) -> bool:
        """The first stage was."""
        return bool(self.stages) and self.stages[0].given_up

    def _choose(self, identity: str, alone: BiEncoder | None) -> None:
        """Keep what has earned it on dev. `alone`: the query prompt of the first of two stages."""
        task, biencoder, earned = self.task, self.task.biencoder, None
        if alone is not None:
            earned = compare(task.dev_scores(alone, True), task.dev_scores(biencoder, True), HEADLINE)
            if not (earned.difference > 0 and earned.p_value < ALPHA):
                biencoder.prompts = alone.prompts
        fresh, dev = "document" in biencoder.prompts, None
        if task.data.dev:
            frozen, tuned = (task.dev_mean(each, fresh) for each in (task.frozen, biencoder))
            dev = {"metric": HEADLINE, "frozen": frozen, "tuned": tuned}
            biencoder.strength = 1.0 if tuned > frozen else 0.0
        biencoder.training_record = {
            "settings": asdict(task.settings),
            "run": identity,
            "train_queries": len(task.texts),
            "dev_queries": len(task.data.dev),
            "dev": dev,
            "document_prompt_on_dev": earned.as_dict() if earned is not None else None,
        }


def checkpoints(path: Path) -> list[Path]:
    """The files in which a run keeps its state: one for each stage."""
    return [path, path.with_name(f"{path.name}.2")]


def run_identity(biencoder: BiEncoder, data: TrainingData, settings: TuneSettings) -> str:
    """SHA-256 of what a run depends on: settings, model, data, and how this machine computes.

    How many threads and processes share the work is not in it, so that a run may go on with others; sums are then
    rounded in another order.
    """
    texts = [data.queries[query] for query in (*data.train, *data.dev)]
    tower = biencoder.tower
    parts = [asdict(settings), tower.fingerprint, data.corpus.fingerprint, texts, data.train, data.dev, data.teacher]
    machine = [torch.__version__, tower.device.type, fast_bfloat16(tower.device)]
    return hashlib.sha256(json.dumps([*parts, machine]).encode()).hexdigest()


class Task(BaseTask):
    """A data set to tune on: the vectors that do not change, and functions that make those that do."""

    def __init__(
        self,
        biencoder: BiEncoder,
        data: TrainingData,
        settings: TuneSettings,
        documents: VectorBlocks,
        index: Index | HybridIndex | None = None,
    ) -> None:
        """`index`: over `documents`, where there is one already."""
        super().__init__(biencoder.tower.device, settings.precision, settings.seed)
        relevant = learnable(data.train, data.corpus.first_of)
        ids = list(relevant)
        if not ids:
            raise UserError("tuning needs at least one training query with a relevant document")
        if not data.dev and "document" in biencoder.prompts:
            raise UserError("tuning documents needs at least one dev query with a relevant document")
        self.biencoder, self.data, self.settings, self.documents = biencoder, data, settings, documents
        self.frozen, self.corpus = BiEncoder(biencoder.tower), data.corpus
        self.texts = [data.queries[query] for query in ids]
        self.relevant, self.beside = passages.positives(self.corpus, ids, relevant)  # beside: what does not count
        if self.corpus.groups is not None:
            given = self.frozen_queries.cpu().numpy(), self.relevant, self.beside, documents
            self.relevant, self.beside = passages.best_chunks(self.corpus, *given)
        self.in_memory = documents.nbytes <= settings.memory * 1e9
        # Beyond the budget, dev scores and mined documents come from vectors of a quarter of the size
        if index is None:
            factory = "Flat" if self.in_memory else "SQ8"
            index = Index.build(documents, None, self.corpus.ids, factory=factory, encoder={})
            index.first_of = self.corpus.first_of
        self.index = index.index if isinstance(index, HybridIndex) else index
        reads = biencoder.feedback
        self.first_pass = FirstPass(index, reads.documents, reads.bm25_weight) if reads is not None else None
        self.negatives = settings.negatives or "corpus"
        self.temperature = settings.temperature or (0.05 if biencoder.tower.similarity == "cosine" else 1.0)
        self.taught = Taught.of(data, ids) if data.teacher else None
        self._ids: dict[tuple[str, int], list[int]] = {}
        self._frozen_dev: dict[bool, float] = {}

    def plan(self, fresh: bool) -> Plan:
        """The batches and the loop of a stage; see `plan.length`."""
        settings, count = self.settings, len(self.texts)
        per_epoch = math.ceil(count / settings.batch_size)
        rounds, steps = length(settings, count, fresh)

        @lru_cache(maxsize=1)
        def order(epoch: int) -> list[Positions]:
            return parts(self.generator(epoch).permutation(count), settings.batch_size)

        def batches(number: int) -> list[Batch]:
            places = ((step, *divmod(step, per_epoch)) for step in range(number * steps, (number + 1) * steps))
            return [Batch(order(epoch)[place], step) for step, epoch, place in places]

        rate = settings.document_learning_rate if fresh else settings.learning_rate
        loop = LoopSettings(rounds, rate, settings.warmup, settings.weight_decay, settings.clip, settings.patience)
        return Plan(fresh, rounds, steps, batches, loop)

    def loss(self, fresh: bool) -> Callable[[Batch], Tensor]:
        """Batch -> contrastive loss. With `fresh`, documents are encoded with their prompt, else looked up."""
        settings, count = self.settings, len(self.corpus)
        whole = self.all_documents if self.negatives == "corpus" and self.in_memory and not fresh else None
        hard = self.negatives != "in-batch" and whole is None
        mined = self.mine() if hard else []

        def contrast(
            batch: Batch, anchors: Tensor, vectors: Tensor, positives: list[Positions], candidates: Positions | None
        ) -> Tensor:
            scores = anchors @ vectors.T
            beside = [self.beside[query] for query in batch.queries]
            if any(map(len, beside)):
                scores = scores.masked_fill(self.positive(beside, candidates), LEFT_OUT)
            if self.taught is not None:
                target = torch.from_numpy(self.taught.probabilities(batch.queries, candidates)).to(self.device)
                return distillation(scores, target, self.temperature)
            objective = symmetric_info_nce if settings.symmetric else info_nce
            return objective(scores, self.positive(positives, candidates), self.temperature)

        def contrastive(batch: Batch) -> Tensor:
            draw = np.random.default_rng([settings.seed, batch.step])
            anchors = self.query_vectors(batch.queries)
            positives = [self.relevant[query] for query in batch.queries]
            if whole is not None:
                return contrast(batch, anchors, whole, positives, None)
            candidates = [draw.choice(each, 1) if fresh else each for each in positives]
            if hard:
                most = settings.hard_negatives if fresh else MINED
                candidates += [draw.permutation(mined[query])[:most] for query in batch.queries]
            if self.negatives == "corpus" and not fresh:
                candidates.append(draw.integers(count, size=RANDOM))
            chosen = np.unique(np.concatenate(candidates))
            return contrast(batch, anchors, self.document_vectors(chosen, fresh), positives, chosen)

        if not settings.keep:
            return contrastive
        sides = [side for side in self.biencoder.prompts if fresh or side == "query"]
        frozen = {side: self.general[side] for side in sides}
        return keeping(contrastive, self.biencoder, frozen, settings, self.autocast)

    def query_vectors(self, positions: Positions) -> Tensor:
        """Training queries -> vectors (queries, dimension), with gradients where the side has a prompt."""
        if "query" in self.biencoder.prompts:
            read = self.documents_at(self.read[positions]) if self.first_pass is not None else None
            return self._embed("query", positions, lambda position: self.texts[position], read)
        return self.frozen_queries[torch.from_numpy(positions).to(self.device)]

    def document_vectors(self, positions: Positions, fresh: bool) -> Tensor:
        """Documents -> vectors (documents, dimension), with gradients where they are encoded anew."""
        if fresh:
            return self._embed("document", positions, lambda position: self.corpus[position].content)
        return torch.from_numpy(self.documents.rows(positions)).to(self.device)

    def positive(self, relevant: Sequence[Positions], candidates: Positions | None) -> Tensor:
        """(queries, candidates) booleans: which candidate is relevant to which query; the whole corpus when None."""
        mask = np.zeros((len(relevant), len(self.corpus) if candidates is None else len(candidates)), dtype=bool)
        for row, positions in zip(mask, relevant, strict=True):
            row[positions if candidates is None else np.flatnonzero(np.isin(candidates, positions))] = True
        return torch.from_numpy(mask).to(self.device)

    def mine(self) -> list[Positions]:
        """The best answers to each training query that are not relevant, by the query side as it is now."""
        with torch.no_grad():
            queries = self.query_vectors(np.arange(len(self.texts))).float().cpu().numpy()
        most = max(1, *map(len, self.beside)) + max(map(len, self.relevant))
        _, found = self.index.search(queries, MINED + most)
        mined = []
        for row, positives, beside in zip(found, self.relevant, self.beside, strict=True):
            positions = np.array([self.corpus.position(id) for id in row], dtype=np.int64)
            mined.append(positions[~np.isin(positions, [*positives, *beside])][:MINED])
        return mined

    def loop(self, plan: Plan, give_up: float | None) -> LoopSettings:
        """The loop of a stage, which knows the score to beat where there is a dev query."""
        if not self.data.dev:
            return plan.loop
        return replace(plan.loop, to_beat=self.dev_mean(self.frozen, plan.fresh), give_up=give_up)

    def dev_mean(self, biencoder: BiEncoder, fresh: bool) -> float:
        """Dev nDCG@10 of a bi-encoder; queries whose documents training has not seen count as much as the others. That
        of the frozen model is computed once."""
        known = self._frozen_dev if biencoder is self.frozen else {}
        if fresh not in known:
            known[fresh] = balanced(self.dev_scores(biencoder, fresh), self.unseen)
        return known[fresh]

    @torch.no_grad()
    def dev_scores(self, biencoder: BiEncoder, fresh: bool) -> dict[str, float]:
        """Dev query -> nDCG@10: over the frozen index, or over a pool of documents that is encoded now."""
        names = list(self.data.dev)
        ids = biencoder.tokenize([self.data.queries[name] for name in names], "query")
        read = self.documents_at(self.read_by_dev) if biencoder.feedback is not None else None
        queries = biencoder.embed(ids, "query", documents=read)
        if fresh:
            texts = [self.corpus[position].content for position in self.pool]
            documents = biencoder.embed(biencoder.tokenize(texts, "document"), "document")
            pool = [self.corpus.ids[position] for position in self.pool]
            scores = (queries.float() @ documents.float().T).tolist()
            run = {name: dict(zip(pool, row, strict=True)) for name, row in zip(names, scores, strict=True)}
            run = passages.of_documents(run, self.corpus)
        else:
            run = self.index.rank(names, queries.float().cpu().numpy(), 10)
        return per_query(self.data.dev, drop_own(run, self.corpus.first_of), [HEADLINE])[HEADLINE]

    @cached_property
    def unseen(self) -> list[str]:
        """Dev queries that ask for documents which training has not seen."""
        return self.data.unseen()

    @cached_property
    def all_documents(self) -> Tensor:
        """The frozen vectors of the whole corpus (documents, dimension)."""
        return torch.from_numpy(self.documents.array()).to(self.device)

    @cached_property
    def frozen_queries(self) -> Tensor:
        """The frozen vectors of the training queries (queries, dimension)."""
        return torch.from_numpy(self.frozen.query_vectors(self.texts)).to(self.device)

    @cached_property
    def read(self) -> Positions:
        """The documents (queries, documents) that the prompt of each training query is made from."""
        assert self.first_pass is not None
        return self.first_pass.positions(self.texts, self.frozen_queries.cpu().numpy())

    @cached_property
    def read_by_dev(self) -> Positions:
        """The same for dev queries."""
        assert self.first_pass is not None
        texts = [self.data.queries[name] for name in self.data.dev]
        return self.first_pass.positions(texts, self.frozen.query_vectors(texts))

    def documents_at(self, positions: Positions) -> Tensor:
        """The frozen vectors (queries, documents, dimension) at positions (queries, documents)."""
        found = self.documents.rows(positions.reshape(-1)).reshape(*positions.shape, -1)
        return torch.from_numpy(found).to(self.device)

    @cached_property
    def general(self) -> dict[str, Tensor]:
        """The frozen vectors of the general texts, of each side with a prompt."""
        return frozen_vectors(self.frozen, self.biencoder.prompts)

    @cached_property
    def pool(self) -> list[int]:
        """Documents of dev evaluations; see `passages.dev_pool`."""
        vectors = self.frozen.query_vectors([self.data.queries[name] for name in self.data.dev])
        return passages.dev_pool(self.biencoder, self.corpus, self.data.dev, vectors, self.index)

    def _embed(
        self, side: str, positions: Positions, read: Callable[[int], str], documents: Tensor | None = None
    ) -> Tensor:
        wanted = [int(position) for position in positions]
        new = [position for position in wanted if (side, position) not in self._ids]
        ids = self.biencoder.tokenize([read(position) for position in new], side)
        self._ids |= {(side, position): row for position, row in zip(new, ids, strict=True)}
        rows = [self._ids[side, position] for position in wanted]
        saving = torch.is_grad_enabled() and sum(map(len, rows)) > SAVING_TOKENS
        with self.autocast():
            return self.biencoder.embed(rows, side, documents=documents, saving=saving).float()

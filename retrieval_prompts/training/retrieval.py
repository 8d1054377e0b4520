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
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.data.beir_folder import Corpus
from retrieval_prompts.data.judgements import Qrels
from retrieval_prompts.errors import UserError
from retrieval_prompts.evaluation.metrics import drop_identical, means, per_query
from retrieval_prompts.evaluation.significance import ALPHA, compare
from retrieval_prompts.prompts.encoders import PromptTable
from retrieval_prompts.towers.text import Floats
from retrieval_prompts.training.loop import LoopSettings, Step, fit
from retrieval_prompts.training.losses import info_nce, symmetric_info_nce
from retrieval_prompts.training.settings import TuneSettings
from retrieval_prompts.vectors.blocks import VectorBlocks
from retrieval_prompts.vectors.index import Index

DEV_METRIC = "ndcg@10"
ROUNDS = 10  # dev evaluations of a training; half as many where each one encodes documents
MINED = 50  # wrong answers a query that hard negatives are drawn from
RANDOM = 2048  # random documents a step where the corpus is beyond the memory budget
DEV_POOL_TOKENS = 60_000  # documents that a dev evaluation encodes anew, in tokens
LEFT_OUT = -1e4  # the score of a document that does not count; finite, so that its gradient is zero and not NaN
SAVING_TOKENS = 20_000  # above this many tokens a step, activations are recomputed instead of kept

Positions = NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """Queries by their number in training, and the step, which seeds whatever is drawn for them."""

    queries: Positions
    step: int


def train(
    biencoder: BiEncoder,
    corpus: Corpus,
    queries: dict[str, str],
    train: Qrels,
    dev: Qrels,
    settings: TuneSettings,
    *,
    documents: VectorBlocks,
    checkpoint: Path | None = None,
    history: list[Step] | None = None,
) -> Iterator[tuple[Step, int]]:
    """Train the prompts that are attached to `biencoder`; yields a record a step (see `training.fit`) and the total.

    Afterwards the bi-encoder holds the prompts with the best dev nDCG@10. Where none beats the frozen model there,
    its strength is 0, which is the frozen model. With prompts on both sides the query side is trained first, alone,
    against the frozen documents; then both. A document prompt has to earn the encoding of the whole corpus: it is
    dropped unless dev is significantly better with it than with the query prompt of the first stage.

    Args:
        train, dev: judgements by query id; documents graded above 0 are relevant.
        documents: the corpus's frozen vectors.
        checkpoint: a file; a second stage keeps its own beside it (see `checkpoints`).
        history: a list that gets the records of a stage when it has ended, those from before an interruption included.

    Raises UserError when there is no query to train on, or training diverges.
    """
    task = Task(biencoder, corpus, queries, train, dev, settings, documents)
    identity = run_identity(biencoder, corpus, queries, train, dev, settings)
    both = {"query", "document"} <= set(biencoder.prompts)
    # A common part would change the documents while the query side is trained alone
    stages = [("query",), ("query", "document")] if both and not settings.common else [tuple(biencoder.prompts)]
    plans = [task.plan("document" in sides) for sides in stages]
    total = sum(plan.epochs * plan.steps for plan in plans)
    before = 0
    for number, (sides, plan) in enumerate(zip(stages, plans, strict=True)):
        module = biencoder.prompts if len(stages) == number + 1 else biencoder.prompts[sides[0]]
        file = checkpoints(checkpoint)[number] if checkpoint is not None else None
        fresh = "document" in sides
        if number == 1:
            alone = BiEncoder(
                biencoder.tower, biencoder.kind, {"query": PromptTable(biencoder.prompts["query"]().detach())}
            )
        loss, score = task.loss(fresh), partial(task.dev_mean, biencoder, fresh)
        records: list[Step] = []
        steps = fit(
            module,
            plan.batches,
            loss,
            score,
            plan.loop,
            checkpoint=file,
            identity=[identity, number],
            history=records,
        )
        for step in steps:
            yield replace(step, step=step.step + before), total
        if history is not None:
            history += [replace(step, step=step.step + before) for step in records]
        before += plan.epochs * plan.steps
    earned = None
    if len(stages) == 2:
        earned = compare(task.dev_scores(alone, True), task.dev_scores(biencoder, True), DEV_METRIC)
        if not (earned.difference > 0 and earned.p_value < ALPHA):
            biencoder.prompts = alone.prompts
    fresh = "document" in biencoder.prompts
    frozen, tuned = (task.dev_mean(each, fresh) for each in (task.frozen, biencoder))
    biencoder.strength = 1.0 if tuned > frozen else 0.0
    biencoder.training_record = {
        "settings": asdict(settings),
        "run": identity,
        "train_queries": len(task.texts),
        "dev_queries": len(dev),
        "dev": {"metric": DEV_METRIC, "frozen": frozen, "tuned": tuned},
        "document_prompt_on_dev": earned.as_dict() if earned is not None else None,
    }


def checkpoints(path: Path) -> list[Path]:
    """The files in which a run keeps its state: one for each stage."""
    return [path, path.with_name(f"{path.name}.2")]


def run_identity(
    biencoder: BiEncoder, corpus: Corpus, queries: dict[str, str], train: Qrels, dev: Qrels, settings: TuneSettings
) -> str:
    """SHA-256 of all that a run's bits depend on: settings, model, data, and how this machine computes."""
    texts = [queries[query] for query in (*train, *dev)]
    tower = biencoder.tower
    parts = [asdict(settings), tower.fingerprint, corpus.fingerprint, texts, train, dev]
    machine = [torch.__version__, torch.get_num_threads(), tower.device.type, fast_bfloat16(tower.device)]
    return hashlib.sha256(json.dumps([*parts, machine]).encode()).hexdigest()


@dataclass(frozen=True)
class Plan:
    """A stage of training: its batches, round by round, and its loop. One round ends with a dev evaluation."""

    epochs: int
    steps: int
    batches: Callable[[int], list[Batch]]
    loop: LoopSettings


class Task:
    """A data set to tune on: the vectors that do not change, and functions that make those that do."""

    def __init__(
        self,
        biencoder: BiEncoder,
        corpus: Corpus,
        queries: dict[str, str],
        train: Qrels,
        dev: Qrels,
        settings: TuneSettings,
        documents: VectorBlocks,
        index: Index | None = None,
    ) -> None:
        """`index`: over `documents`, where there is one already."""
        # A document of the query's own id is neither relevant nor a negative: BEIR leaves it out of every ranking
        relevant = {
            query: [doc for doc, grade in judged.items() if grade > 0 and doc != query]
            for query, judged in train.items()
        }
        ids = [query for query, found in relevant.items() if found]
        if not ids or not dev:
            raise UserError("tuning needs at least one training and one dev query with a relevant document")
        self.biencoder, self.corpus, self.queries, self.dev = biencoder, corpus, queries, dev
        self.settings, self.documents = settings, documents
        self.device = biencoder.tower.device
        self.frozen = BiEncoder(biencoder.tower)
        self.texts = [queries[query] for query in ids]
        self.relevant: list[Positions] = [
            np.array(sorted(corpus.position(doc) for doc in relevant[query]), dtype=np.int64) for query in ids
        ]
        shared = set(ids).intersection(corpus.ids)
        self.own = np.array([corpus.position(query) if query in shared else -1 for query in ids], dtype=np.int64)
        self.in_memory = documents.nbytes <= settings.memory * 1e9
        # Beyond the budget, dev scores and mined documents come from vectors of a quarter of the size
        if index is None:
            factory = "Flat" if self.in_memory else "SQ8"
            index = Index.build(documents, None, corpus.ids, factory=factory, encoder={})
        self.index = index
        self.negatives = settings.negatives or "corpus"
        self.bfloat16 = settings.precision == "bfloat16" or (
            settings.precision == "auto" and fast_bfloat16(self.device)
        )
        self.temperature = settings.temperature or (0.05 if biencoder.tower.similarity == "cosine" else 1.0)
        self._ids: dict[tuple[str, int], list[int]] = {}

    def plan(self, fresh: bool) -> Plan:
        """How long a stage is: with `fresh` documents, which cost more, it is shorter and scores dev less often."""
        settings, count = self.settings, len(self.texts)
        per_epoch = math.ceil(count / settings.batch_size)
        most = min(settings.epochs * per_epoch, settings.document_steps if fresh else settings.max_steps)
        steps = math.ceil(most / (ROUNDS // 2 if fresh else ROUNDS))
        rounds = most // steps

        @lru_cache(maxsize=1)
        def order(epoch: int) -> Positions:
            return np.random.default_rng([settings.seed, epoch]).permutation(count)

        def batches(number: int) -> list[Batch]:
            made = []
            for step in range(number * steps, (number + 1) * steps):
                epoch, place = divmod(step, per_epoch)
                part = order(epoch)[place * settings.batch_size : (place + 1) * settings.batch_size]
                made.append(Batch(part, step))
            return made

        rate = settings.document_learning_rate if fresh else settings.learning_rate
        loop = LoopSettings(rounds, rate, settings.warmup, settings.weight_decay, settings.clip, settings.patience)
        return Plan(rounds, steps, batches, loop)

    def loss(self, fresh: bool) -> Callable[[Batch], Tensor]:
        """Batch -> contrastive loss. With `fresh`, documents are encoded with their prompt, else looked up."""
        settings, count = self.settings, len(self.corpus)
        objective = symmetric_info_nce if settings.symmetric else info_nce
        whole = self.all_documents if self.negatives == "corpus" and self.in_memory and not fresh else None
        hard = self.negatives != "in-batch" and whole is None
        mined = self.mine() if hard else []

        def contrast(
            batch: Batch, anchors: Tensor, vectors: Tensor, positives: list[Positions], candidates: Positions | None
        ) -> Tensor:
            scores = anchors @ vectors.T
            own = self.own[batch.queries]
            if (own >= 0).any():
                scores = scores.masked_fill(
                    self.positive([own[[row]] for row in range(len(own))], candidates), LEFT_OUT
                )
            return objective(scores, self.positive(positives, candidates), self.temperature)

        def loss(batch: Batch) -> Tensor:
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

        return loss

    def query_vectors(self, positions: Positions) -> Tensor:
        """Training queries -> vectors (queries, dimension), with gradients where the side has a prompt."""
        if "query" in self.biencoder.prompts:
            return self._embed("query", positions, lambda position: self.texts[position])
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
            known = positions[positions >= 0]
            row[known if candidates is None else np.flatnonzero(np.isin(candidates, known))] = True
        return torch.from_numpy(mask).to(self.device)

    def mine(self) -> list[Positions]:
        """The best answers to each training query that are not relevant, by the query side as it is now."""
        with torch.no_grad():
            queries = self.query_vectors(np.arange(len(self.texts))).float().cpu().numpy()
        _, found = self.index.search(queries, MINED + 1 + max(map(len, self.relevant)))
        mined = []
        for row, positives, own in zip(found, self.relevant, self.own, strict=True):
            positions = np.array([self.corpus.position(id) for id in row], dtype=np.int64)
            mined.append(positions[~np.isin(positions, [*positives, own])][:MINED])
        return mined

    def dev_mean(self, biencoder: BiEncoder, fresh: bool) -> float:
        """Dev nDCG@10 of a bi-encoder."""
        return means({DEV_METRIC: self.dev_scores(biencoder, fresh)})[DEV_METRIC]

    @torch.no_grad()
    def dev_scores(self, biencoder: BiEncoder, fresh: bool) -> dict[str, float]:
        """Dev query -> nDCG@10: over the frozen index, or over a pool of documents that is encoded now."""
        names = list(self.dev)
        queries = biencoder.embed(biencoder.tokenize([self.queries[name] for name in names], "query"), "query")
        if fresh:
            texts = [self.corpus[position].content for position in self.pool]
            documents = biencoder.embed(biencoder.tokenize(texts, "document"), "document")
            ids = [self.corpus.ids[position] for position in self.pool]
            scores = (queries.float() @ documents.float().T).tolist()
            run = {name: dict(zip(ids, row, strict=True)) for name, row in zip(names, scores, strict=True)}
        else:
            run = self.index.rank(names, queries.float().cpu().numpy(), 10)
        return per_query(self.dev, drop_identical(run), [DEV_METRIC])[DEV_METRIC]

    @cached_property
    def all_documents(self) -> Tensor:
        """The frozen vectors of the whole corpus (documents, dimension)."""
        return torch.from_numpy(self.documents.array()).to(self.device)

    @cached_property
    def frozen_queries(self) -> Tensor:
        """The frozen vectors of the training queries (queries, dimension)."""
        return torch.from_numpy(self._frozen_queries(self.texts)).to(self.device)

    @cached_property
    def pool(self) -> list[int]:
        """Documents of dev evaluations: the relevant ones, then the frozen model's best by rank."""
        relevant = [doc for judged in self.dev.values() for doc, grade in judged.items() if grade > 0]
        _, found = self.index.search(self._frozen_queries([self.queries[name] for name in self.dev]), 100)
        ranked = [row[rank] for rank in range(100) for row in found if rank < len(row)]
        pool: list[int] = []
        tokens = 0
        for id in dict.fromkeys([*relevant, *ranked]):
            position = self.corpus.position(id)
            tokens += len(self.biencoder.tokenize([self.corpus[position].content], "document")[0])
            if tokens > DEV_POOL_TOKENS and len(pool) >= len(set(relevant)):
                break
            pool.append(position)
        return pool

    def _frozen_queries(self, texts: list[str]) -> Floats:
        return self.frozen.tower.comparable(self.frozen.encode_query(texts))

    def _embed(self, side: str, positions: Positions, read: Callable[[int], str]) -> Tensor:
        wanted = [int(position) for position in positions]
        new = [position for position in wanted if (side, position) not in self._ids]
        ids = self.biencoder.tokenize([read(position) for position in new], side)
        self._ids |= {(side, position): row for position, row in zip(new, ids, strict=True)}
        rows = [self._ids[side, position] for position in wanted]
        saving = torch.is_grad_enabled() and sum(map(len, rows)) > SAVING_TOKENS
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            return self.biencoder.embed(rows, side, saving=saving).float()


def fast_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies matrices in bfloat16 faster than in float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    amx = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return device.type == "cpu" and amx is not None and bool(amx())

"""Tune the prompts of a bi-encoder on a data set: which vectors are compared in a step, and how dev is scored.

A side without a prompt is a constant: its vectors are computed once, cached, and looked up. With the query side
alone, each query is compared with the whole corpus; with a prompt on the documents, with the documents of its batch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.data import Corpus, Qrels
from retrieval_prompts.encode import VectorBlocks
from retrieval_prompts.errors import UserError
from retrieval_prompts.evaluate import means, per_query
from retrieval_prompts.index import Index
from retrieval_prompts.losses import info_nce, symmetric_info_nce
from retrieval_prompts.pairs import title_pairs
from retrieval_prompts.settings import TuneSettings
from retrieval_prompts.tower import Floats
from retrieval_prompts.training import LoopSettings, Step, fit

DEV_METRIC = "ndcg@10"
Positions = NDArray[np.int64]


MINED = 50  # the frozen model's best wrong answers that hard negatives are drawn from
RANDOM = 2048  # random documents a step where the corpus is beyond the memory budget
DEV_POOL_TOKENS = 60_000  # documents that a dev evaluation re-encodes, in tokens
SAVING_TOKENS = 12_000  # above this many tokens a step, activations are recomputed instead of kept


class Side(Protocol):
    """Vectors of the texts at some positions, with gradients where the side has a prompt."""

    def __call__(self, positions: Positions) -> Tensor: ...


def frozen_side(vectors: VectorBlocks, device: torch.device, in_memory: bool) -> Side:
    """Looks vectors up; from memory, or from their blocks on disk."""
    if in_memory:
        table = torch.from_numpy(vectors.array()).to(device)
        return lambda positions: table[torch.from_numpy(positions).to(device)]
    return lambda positions: torch.from_numpy(vectors.rows(positions)).to(device)


def prompted_side(biencoder: BiEncoder, side: str, read: Callable[[int], str]) -> Side:
    """Embeds texts; the token ids of each are made once."""
    known: dict[int, list[int]] = {}

    def vectors(positions: Positions) -> Tensor:
        new = [int(position) for position in positions if int(position) not in known]
        known.update(zip(new, biencoder.tokenize([read(position) for position in new], side), strict=True))
        ids = [known[int(position)] for position in positions]
        saving = torch.is_grad_enabled() and sum(map(len, ids)) > SAVING_TOKENS
        return biencoder.embed(ids, side, saving=saving)

    return vectors


@dataclass(frozen=True)
class Batch:
    """Queries by their number in training, and the seed of whatever is drawn for them."""

    queries: Positions
    seed: int


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
) -> Iterator[tuple[Step, int]]:
    """Train the prompts that are attached to `biencoder`; yields a record a step (see `training.fit`) and the total.

    Afterwards the bi-encoder holds the prompts with the best dev nDCG@10. Where none beats the frozen model there,
    its strength is 0, which is the frozen model, and the last record's `dev` says what that one reached.

    Args:
        train, dev: judgements by query id; documents graded above 0 are relevant.
        documents: the corpus's frozen vectors.
        checkpoint: see `training.fit`.

    Raises UserError when there is no query to train on, or training diverges.
    """
    device = biencoder.tower.device
    ids = [query for query, judged in train.items() if any(grade > 0 for grade in judged.values())]
    if not ids or not dev:
        raise UserError("tuning needs at least one training and one dev query with a relevant document")
    relevant = [
        np.array(sorted(corpus.position(doc) for doc, grade in train[query].items() if grade > 0), dtype=np.int64)
        for query in ids
    ]
    in_memory = documents.nbytes <= settings.memory * 1e9
    index = Index.build(documents, None, corpus.ids, encoder={})
    texts = [queries[query] for query in ids]
    fixed_documents = "document" not in biencoder.prompts
    labelled, drawn_titles = len(ids), 0
    if settings.titles > 0 and fixed_documents:
        drawn_titles = round(settings.titles * labelled)
        pairs = title_pairs(corpus, drawn_titles * settings.epochs, settings.seed)
        drawn_titles = min(drawn_titles, len(pairs))
        texts += [title for title, _ in pairs]
        relevant += [positions for _, positions in pairs]
    query_side = (
        prompted_side(biencoder, "query", lambda position: texts[position])
        if "query" in biencoder.prompts
        else frozen_side(
            _frozen(biencoder).encode_corpus(len(texts), lambda start, stop: texts[start:stop], side="query"),
            device,
            True,
        )
    )
    document_side = (
        frozen_side(documents, device, in_memory)
        if fixed_documents
        else prompted_side(biencoder, "document", lambda position: corpus[position].content)
    )
    negatives = settings.negatives or ("corpus" if fixed_documents else "mined")
    whole = negatives == "corpus" and in_memory
    everything = torch.from_numpy(documents.array()).to(device) if whole else None
    mined: list[Positions] = []
    if not whole and negatives != "in-batch":
        frozen = _frozen(biencoder).encode_query(texts)
        mined = _mine(index, corpus, biencoder.tower.comparable(frozen), relevant)
    temperature = settings.temperature or (0.05 if biencoder.tower.similarity == "cosine" else 1.0)
    objective = symmetric_info_nce if settings.symmetric else info_nce

    def batches(epoch: int) -> list[Batch]:
        random = np.random.default_rng([settings.seed, epoch])
        titles = labelled + random.permutation(len(texts) - labelled)[:drawn_titles]
        order = random.permutation(np.concatenate([np.arange(labelled), titles]))
        cut = [order[start : start + settings.batch_size] for start in range(0, len(order), settings.batch_size)]
        return [Batch(part, int(part[0])) for part in cut]

    def loss(batch: Batch) -> Tensor:
        anchors = query_side(batch.queries)
        positives = [relevant[query] for query in batch.queries]
        if everything is not None:
            scores = anchors @ everything.T
            return objective(scores, _positive(positives, None, len(corpus), device), temperature)
        draw = np.random.default_rng([settings.seed, batch.seed, len(batch.queries)])
        candidates = [*positives] if fixed_documents else [draw.choice(each, 1) for each in positives]
        if negatives != "in-batch":
            count = MINED if fixed_documents else settings.hard_negatives
            for query in batch.queries:
                candidates.append(draw.permutation(mined[query])[:count])
        if negatives == "corpus":
            candidates.append(draw.integers(len(corpus), size=RANDOM))
        chosen = np.unique(np.concatenate(candidates))
        scores = anchors @ document_side(chosen).T
        return objective(scores, _positive(positives, chosen, len(corpus), device), temperature)

    pool = None if fixed_documents else _pool(biencoder, corpus, queries, dev, index)
    dev_score = _dev_scorer(biencoder, corpus, queries, dev, index, pool)
    frozen_score = _dev_scorer(_frozen(biencoder), corpus, queries, dev, index, pool)()
    identity = run_identity(biencoder, corpus, queries, train, dev, settings)
    total = settings.epochs * len(batches(0))
    loop = LoopSettings(
        settings.epochs,
        settings.learning_rate,
        settings.warmup,
        settings.weight_decay,
        settings.clip,
        settings.patience,
    )
    for step in fit(biencoder.prompts, batches, loss, dev_score, loop, checkpoint=checkpoint, identity=identity):
        yield step, total
    reached = dev_score()
    biencoder.strength = 1.0 if reached > frozen_score else 0.0
    biencoder.training_record = {
        **biencoder.training_record,
        "settings": asdict(settings),
        "run": identity,
        "train_queries": labelled,
        "titles_an_epoch": drawn_titles,
        "dev_queries": len(dev),
        "dev": {"metric": DEV_METRIC, "frozen": frozen_score, "tuned": reached},
    }


def _frozen(biencoder: BiEncoder) -> BiEncoder:
    return BiEncoder(biencoder.tower)


def _positive(relevant: Sequence[Positions], candidates: Positions | None, count: int, device: torch.device) -> Tensor:
    """(queries, candidates) booleans: which candidate is relevant to which query; all documents when None."""
    mask = np.zeros((len(relevant), count if candidates is None else len(candidates)), dtype=bool)
    for row, positions in zip(mask, relevant, strict=True):
        row[positions if candidates is None else np.flatnonzero(np.isin(candidates, positions))] = True
    return torch.from_numpy(mask).to(device)


def _mine(index: Index, corpus: Corpus, queries: Floats, relevant: Sequence[Positions]) -> list[Positions]:
    """The frozen model's best answers to each training query that are not relevant to it, best first."""
    most = max(map(len, relevant))
    _, found = index.search(queries, MINED + most)
    mined = []
    for row, positives in zip(found, relevant, strict=True):
        positions = np.array([corpus.position(id) for id in row], dtype=np.int64)
        mined.append(positions[~np.isin(positions, positives)][:MINED])
    return mined


def _dev_scorer(
    biencoder: BiEncoder,
    corpus: Corpus,
    queries: dict[str, str],
    dev: Qrels,
    index: Index,
    pool: Sequence[int] | None,
) -> Callable[[], float]:
    """() -> nDCG@10 of the dev queries over a pool that is encoded anew each time, or else over the index."""
    names = list(dev)
    query_ids = biencoder.tokenize([queries[name] for name in names], "query")
    document_ids = biencoder.tokenize([corpus[position].content for position in pool or []], "document")
    pooled = [corpus.ids[position] for position in pool or []]

    @torch.no_grad()
    def score() -> float:
        vectors = biencoder.embed(query_ids, "query").float().cpu()
        if pool is None:
            run = index.run(names, vectors.numpy(), 10)
        else:
            scores = (vectors @ biencoder.embed(document_ids, "document").float().cpu().T).tolist()
            run = {name: dict(zip(pooled, row, strict=True)) for name, row in zip(names, scores, strict=True)}
        return means(per_query(dev, run, [DEV_METRIC]))[DEV_METRIC]

    return score


def _pool(biencoder: BiEncoder, corpus: Corpus, queries: dict[str, str], dev: Qrels, index: Index) -> list[int]:
    """Documents to encode at each dev evaluation: the relevant ones, then the frozen model's best by rank."""
    relevant = [doc for judged in dev.values() for doc, grade in judged.items() if grade > 0]
    frozen = biencoder.tower.comparable(_frozen(biencoder).encode_query([queries[name] for name in dev]))
    _, found = index.search(frozen, 100)
    ranked = [row[rank] for rank in range(100) for row in found if rank < len(row)]
    pool: list[int] = []
    tokens = 0
    for id in dict.fromkeys([*relevant, *ranked]):
        position = corpus.position(id)
        tokens += len(biencoder.tokenize([corpus[position].content], "document")[0])
        if tokens > DEV_POOL_TOKENS and len(pool) >= len(set(relevant)):
            break
        pool.append(position)
    return pool


def run_identity(
    biencoder: BiEncoder, corpus: Corpus, queries: dict[str, str], train: Qrels, dev: Qrels, settings: TuneSettings
) -> str:
    """SHA-256 of all that a training run depends on: settings, model, data, version of torch."""
    texts = [queries[query] for query in (*train, *dev)]
    parts = [
        asdict(settings),
        biencoder.tower.fingerprint,
        corpus.fingerprint,
        texts,
        train,
        dev,
        torch.__version__,
        biencoder.tower.device.type,
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

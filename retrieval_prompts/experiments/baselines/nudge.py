"""NUDGE: move document vectors towards the training queries that they answer. No encoder is trained, no text encoded.

Zeighami et al. 2024, "NUDGE: Lightweight Non-Parametric Fine-Tuning of Embeddings for Retrieval". A document that
answers no training query stays where it is, so NUDGE can only help queries whose documents training has seen, and
may hurt the others, whose documents the moved ones overtake. Of a document in chunks the one moves that is nearest to
the query, and its best chunk is its score.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from retrieval_prompts.data.judgements import Run
from retrieval_prompts.errors import UserError
from retrieval_prompts.evaluation.metrics import HEADLINE
from retrieval_prompts.experiments.baselines.task import QueryTraining, Retriever, Task, dev_mean
from retrieval_prompts.towers.text import Floats, unit_length
from retrieval_prompts.training.settings import TuneSettings
from retrieval_prompts.training.task import Positions
from retrieval_prompts.vectors.blocks import VectorBlocks
from retrieval_prompts.vectors.index import Index

# The values of gamma that are tried. For N those of the authors' package, which finds the one for M without a grid
STEPS = {
    "m": tuple(round(0.05 * number, 2) for number in range(25)),
    "n": tuple(round(0.02 * number, 2) for number in range(25)),
}


def nudge_m(documents: Floats, pulls: Floats, gamma: float) -> Floats:
    """NUDGE-M: the nearest a document gets to its queries with a move of length `gamma` at most.

    Args:
        documents, pulls: (n, dimension); a pull is the sum of the queries that a document answers, or zero.
        gamma: in lengths of the document's own vector, which are 1 in the paper.

    Returns (n, dimension), to be compared by inner product, for lengths change.
    """
    return documents + gamma * _norm(documents) * unit_length(pulls)


def nudge_n(documents: Floats, pulls: Floats, gamma: float) -> Floats:
    """NUDGE-N: the same among vectors of the document's own length: a turn on the great circle towards its queries.

    A document at a right angle to them or farther stays, as in the authors' package.

    Args:
        documents, pulls: (n, dimension), as for `nudge_m`.
        gamma: the square of the chord, for vectors of length 1, in [0, 2]; at most as far as the pull's direction.

    Returns (n, dimension).
    """
    unit, goal = unit_length(documents), unit_length(pulls)
    along = (unit * goal).sum(axis=1, keepdims=True)  # the cosine of the whole way
    turned = (1 - gamma / 2) * unit + math.sqrt(gamma * (4 - gamma)) / 2 * unit_length(goal - along * unit)
    moved = np.where(along >= 1 - gamma / 2, goal, turned)
    return np.where(along <= 0, documents, _norm(documents) * moved)


FORMS = {"m": nudge_m, "n": nudge_n}


def fit(
    task: Task, *, form: str = "n", steps: Sequence[float] | None = None, memory: float = TuneSettings.memory
) -> Retriever:
    """Move the documents that are relevant to training queries as far as is best for dev nDCG@10.

    The record says "gamma", and "documents_changed": how many vectors have to be replaced in an index. Where no step
    beats the frozen model there is none. Dev scores are those of a flat index, whatever the task's is.

    Args:
        form: "n" or "m".
        steps: the values of gamma that are tried, None: STEPS; of equally good ones the smallest is taken.
        memory: gigabytes that the corpus's vectors may take; beyond it, dev reads the ones that do not move at a
            quarter of their size.

    Raises:
        UserError: for another form, for steps that are not from 0 to 2, and when there is no query to train on.
    """
    if form not in FORMS:
        raise UserError(f"the form of NUDGE must be m or n, got {form!r}")
    steps = STEPS[form] if steps is None else steps
    if odd := [gamma for gamma in steps if not 0 <= gamma <= 2]:
        raise UserError(f"the steps of NUDGE must be from 0 to 2, got {odd[0]}")
    start = time.perf_counter()
    move = FORMS[form]
    training = QueryTraining(task, TuneSettings(memory=memory, seed=task.seed))
    moving: Positions = np.unique(np.concatenate(training.relevant))
    documents, pulls = task.documents.rows(moving), np.zeros((len(moving), task.documents.dimension), np.float32)
    for query, positions in zip(training.frozen_queries.cpu().numpy(), training.relevant, strict=True):
        pulls[np.searchsorted(moving, positions)] += query

    queries = task.frozen(task.dev_texts)
    staying = np.delete(np.arange(len(task.data.corpus)), moving)
    rest = _dev_run(task, queries, _left(task.documents, moving), staying, "Flat" if training.in_memory else "SQ8")
    scores = {}
    for gamma in sorted({0.0, *steps}):
        moved = _dev_run(task, queries, move(documents, pulls, gamma), moving, "Flat")
        scores[gamma] = dev_mean(task, {query: _best(rest[query], moved[query]) for query in task.data.dev})
    best = max(scores, key=lambda gamma: scores[gamma])
    index = task.index
    if best > 0:
        blocks = _replaced(task.documents, moving, move(documents, pulls, best))
        index = Index.build(blocks, None, task.data.corpus.ids, encoder={}, factory=task.index.manifest["factory"])
        index.first_of = task.data.corpus.first_of
    record = {
        "settings": {"form": form, "gamma": best, "memory": memory},
        "train_queries": len(training.texts),
        "dev_queries": len(task.data.dev),
        "dev": {"metric": HEADLINE, "frozen": scores[0.0], "tuned": scores[best]},
        "used": best > 0,
        "parameters": documents.size,
        "documents_changed": len(moving) if best > 0 else 0,
        "seconds": round(time.perf_counter() - start, 2),
    }
    return Retriever(index, task.frozen, record)


def _dev_run(
    task: Task, queries: Floats, vectors: Floats | Iterable[Floats], positions: Positions, factory: str
) -> Run:
    """The ten best of some documents, or of documents some of whose chunks these are, for each dev query."""
    if not len(positions):
        return {query: {} for query in task.data.dev}
    ids = [task.data.corpus.ids[position] for position in positions]
    index = Index.build(vectors, None, ids, encoder={}, factory=factory)
    index.first_of = task.data.corpus.first_of
    return index.rank(list(task.data.dev), queries, 10)


def _best(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    """Two rankings in one: a document that has chunks in both has the better of its scores."""
    return {id: max(one.get(id, -math.inf), other.get(id, -math.inf)) for id in (*one, *other)}


def _left(documents: VectorBlocks, moving: Positions) -> Iterator[Floats]:
    """The corpus in blocks, without the rows `moving`."""
    for block, rows, _ in _parts(documents, moving):
        yield np.delete(block, rows, axis=0)


def _replaced(documents: VectorBlocks, moving: Positions, moved: Floats) -> Iterator[Floats]:
    """The corpus in blocks, with `moved` in the rows `moving`."""
    for block, rows, part in _parts(documents, moving):
        block = block.copy()  # it may be a read-only file
        block[rows] = moved[part]
        yield block


def _parts(documents: VectorBlocks, moving: Positions) -> Iterator[tuple[Floats, Positions, slice]]:
    """Each block, which of its rows move, and where these stand in `moving`, which is sorted."""
    start = 0
    for block in documents:
        part = slice(*np.searchsorted(moving, [start, start + len(block)]))
        yield block, moving[part] - start, part
        start += len(block)


def _norm(vectors: Floats) -> Floats:
    return np.asarray(np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)

"""What a prompt does to queries: attention to it, each vector left out, how far queries move and towards what."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from retrieval_prompts.evaluation.metrics import HEADLINE
from retrieval_prompts.evaluation.significance import ALPHA, Comparison, adjust, compare
from retrieval_prompts.experiments.inspection.nearest import Vocabulary
from retrieval_prompts.experiments.inspection.null import Beside
from retrieval_prompts.experiments.inspection.trial import Scores, Trial, each_without, mean, turned, without
from retrieval_prompts.towers.injection import attention
from retrieval_prompts.towers.text import Floats, TextTower

PASS = 16  # texts whose attention is looked at in one pass
LEFT_OUT = 24  # left-out vectors of random prompts, at least, that one is compared with
WORDS = 2000  # whose pull on the queries is measured
LISTED = 8  # words and documents that are named
Done = Callable[[int], object]


@dataclass(frozen=True)
class Attention:
    """The share of its attention that a text pays to the prompt.

    Args:
        total: to all vectors, the mean over layers.
        layers: to all vectors, of each layer.
        vectors: layer -> vector -> share.
        null: the same as `vectors`, the mean of random prompts.
        texts: how many were looked at.
        even: the share that they would get if all tokens got the same.
    """

    total: Beside
    layers: list[Beside]
    vectors: list[list[float]]
    null: list[list[float]]
    texts: int
    even: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def attention_to(
    tower: TextTower,
    side: str,
    kind: str,
    texts: Sequence[str],
    prompts: Sequence[Tensor],
    began: Tensor | None,
    done: Done,
) -> Attention:
    """Attention to the first of some prompts, beside the others, which are random.

    Args:
        prompts: (layers, length, width) each, or with a prompt for each text (texts, layers, length, width).
        done: called with 1 after each of them.
    """
    room = prompts[0].shape[-2] if kind == "input" else 0
    ids = tower.tokenize(list(texts), side, prompt=room)

    def of(prompt: Tensor) -> np.ndarray:
        parts = []
        for start in range(0, len(ids), PASS):
            own = prompt[start : start + PASS] if prompt.dim() == 4 else prompt
            parts.append(attention(tower, ids[start : start + PASS], side, kind, own).float().cpu())
        done(1)
        return torch.cat(parts, dim=1).mean(dim=1).numpy()  # (layers, length)

    paid, *random = [of(prompt) for prompt in prompts]
    first = None if began is None else of(began)
    count = prompts[0].shape[-2]
    return Attention(
        total=Beside.of(
            float(paid.sum(axis=1).mean()),
            [float(each.sum(axis=1).mean()) for each in random],
            None if first is None else float(first.sum(axis=1).mean()),
        ),
        layers=[
            Beside.of(
                float(paid[layer].sum()),
                [float(each[layer].sum()) for each in random],
                None if first is None else float(first[layer].sum()),
            )
            for layer in range(len(paid))
        ],
        vectors=paid.tolist(),
        null=np.mean(random, axis=0).tolist(),
        texts=len(ids),
        even=float(np.mean([count / (count + len(row)) for row in ids])),
    )


@dataclass(frozen=True)
class LeftOut:
    """One vector left out.

    Args:
        moved: how far queries turn (1 - cosine), the mean, beside vectors of random prompts that are left out, and the
            same vector before training.
        test: of nDCG@10 without the vector against the whole prompt.
        p_adjusted: its p, corrected for the number of vectors (Holm).
    """

    name: str
    moved: Beside
    test: Comparison
    p_adjusted: float

    @property
    def matters(self) -> bool:
        """Whether rankings are surely others without it, and queries turn further than by any random vector."""
        return self.p_adjusted < ALPHA and self.moved.beaten

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "moved": self.moved.to_json(),
            "test": self.test.as_dict(),
            "p_adjusted": self.p_adjusted,
            "matters": self.matters,
        }


@dataclass(frozen=True)
class Without:
    """The queries without each vector, and their scores: for what is asked of single queries.

    Args:
        before: how far each turned (queries, vectors) without each vector of the prompt before training.
    """

    vectors: list[Floats]
    scores: list[Scores]
    before: np.ndarray | None


def leave_out(trial: Trial, whole: Floats, scores: Scores, done: Done) -> tuple[list[LeftOut], Without]:
    """Each vector left out.

    Args:
        whole: the queries under the whole prompt; scores: theirs.
        done: called with 1 after every encoding.
    """
    left, moves, judged = [], [], []
    for prompt in each_without(trial.prompt):
        left.append(trial.encode(prompt))
        moves.append(float(turned(whole, left[-1]).mean()))
        judged.append(trial.scores(trial.rank(left[-1])))
        done(1)
    pools: tuple[list[float], list[float]] = ([], [])  # of static vectors, and of those that are made from documents
    static = trial.static
    for seed, places in enumerate(left_out_places(trial)):
        random = trial.random(seed)
        start = trial.encode(random)
        done(1)
        for place in places:
            move = float(turned(start, trial.encode(without(random, place))).mean())
            pools[place >= static].append(move)
            done(1)
    tests = [compare(scores, each, HEADLINE) for each in judged]
    p_values = adjust([test.p_value for test in tests], "holm")
    before = _before(trial, done)
    firsts = [None] * len(left) if before is None else before.mean(axis=0).tolist()
    rows = zip(trial.names, moves, firsts, tests, p_values, strict=True)
    found = [
        LeftOut(name, Beside.of(move, pools[at >= static], first, side="above"), test, p)
        for at, (name, move, first, test, p) in enumerate(rows)
    ]
    return found, Without(left, judged, before)


def _before(trial: Trial, done: Done) -> np.ndarray | None:
    """How far queries turned without each vector before training; None where that prompt is not known."""
    if trial.initial is None:
        return None
    whole, moves = trial.encode(trial.initial), []
    for prompt in each_without(trial.initial):
        moves.append(turned(whole, trial.encode(prompt)))
        done(1)
    return np.stack(moves, axis=1)


def left_out_places(trial: Trial) -> list[list[int]]:
    """Which vectors are left out of each of some random prompts: enough static ones, and enough of documents."""
    static, length = trial.static, trial.prompt.shape[-2]
    groups = [group for group in (range(static), range(static, length)) if group]
    draws = [math.ceil(LEFT_OUT / len(group)) for group in groups]
    return [
        [place for group, most in zip(groups, draws, strict=True) if seed < most for place in group]
        for seed in range(max(draws))
    ]


@dataclass(frozen=True)
class Pull:
    """A word or a document, and how much nearer all queries come to it on the mean: the change of their score."""

    name: str
    title: str
    gain: float
    null: float  # the mean of random prompts


@dataclass(frozen=True)
class Movement:
    """How queries move from where the frozen model has them.

    Args:
        turned: 1 - cosine to the frozen query, the mean.
        shared: the length of the mean movement in mean lengths of the movements: 1 if all queries move alike, near 0
            if each goes its own way.
        relevant: the gain of score of a query's relevant documents over that of the first ten others that the frozen
            model finds: what a ranking gets better by.
        words, documents: towards which all queries move most.
        word_pull, document_pull: the largest gain of a word, and of a document.
    """

    turned: Beside
    shared: Beside
    relevant: Beside
    word_pull: Beside
    document_pull: Beside
    words: list[Pull] = field(default_factory=list)
    documents: list[Pull] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Compass:
    """What movements are measured against: relevant documents and others, all documents, and words of the data."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        self.frozen = trial.encode(None)
        self.documents = trial.bench.own_documents(trial.biencoder) or trial.bench.documents
        self.words = common_words(trial)
        self.word_vectors = trial.tower.comparable(trial.bench.frozen.encode_document(self.words))
        self._relevant, self._others = self._sides()

    def _sides(self) -> tuple[Floats, Floats]:
        """The mean vector of each query's relevant documents, and of the first others that the frozen model finds."""
        trial, corpus = self.trial, self.trial.bench.dataset.corpus
        run = trial.rank(self.frozen)
        sides = []
        for query in trial.ids:
            right = [id for id, grade in trial.qrels[query].items() if grade > 0]
            others = [id for id in run[query] if id not in right][:10]
            for ids in (right, others or right):
                rows = self.documents.rows(np.array([corpus.position(id) for id in ids], dtype=np.int64))
                sides.append(np.asarray(rows, dtype=np.float32).mean(axis=0))
        return np.stack(sides[::2]), np.stack(sides[1::2])

    def figures(self, vectors: Floats) -> tuple[float, float, float]:
        """(turned, shared, relevant) of queries; see `Movement`."""
        moves = vectors - self.frozen
        lengths = np.linalg.norm(moves, axis=1).mean()
        gains = np.einsum("nd,nd->n", moves, self._relevant - self._others)
        shared = np.linalg.norm(moves.mean(axis=0)) / max(float(lengths), 1e-12)
        return float(turned(self.frozen, vectors).mean()), float(shared), float(gains.mean())

    def direction(self, vectors: Floats) -> np.ndarray:
        """Where queries move on the mean (dimension,)."""
        return np.asarray((vectors - self.frozen).mean(axis=0))


def pulls(blocks: Iterable[np.ndarray], directions: np.ndarray, random: int) -> tuple[np.ndarray, ...]:
    """What rows gain by directions (n, dimension): the prompt's, so many random ones, and perhaps that before training.

    Gives (rows,) of the prompt, (rows,) of the random ones, the mean, and (n,) the largest of each. Rows are read once.
    """
    own, average, largest = [], [], np.full(len(directions), -np.inf)
    for block in blocks:
        gains = block @ directions.T  # (rows, n)
        own.append(gains[:, 0])
        average.append(gains[:, 1 : 1 + random].mean(axis=1))
        largest = np.maximum(largest, gains.max(axis=0, initial=-np.inf))
    return np.concatenate(own), np.concatenate(average), np.where(np.isinf(largest), 0.0, largest)


def movement(compass: Compass, whole: Floats, random: Sequence[Floats], began: Floats | None) -> Movement:
    """How queries move, beside the same queries under random prompts and the initial one."""
    own, null = compass.figures(whole), [compass.figures(each) for each in random]
    first = None if began is None else compass.figures(began)
    figures = [Beside.of(own[at], [each[at] for each in null], None if first is None else first[at]) for at in range(3)]
    directions = np.stack([compass.direction(each) for each in (whole, *random, *([] if began is None else [began]))])
    largest, listed = [], []
    corpus = compass.trial.bench.dataset.corpus
    sources: list[tuple[Sequence[str], Iterable[np.ndarray]]]
    sources = [(compass.words, [compass.word_vectors]), (corpus.ids, compass.documents)]
    for at, (named, blocks) in enumerate(sources):
        gains, average, tops = pulls(blocks, directions, len(random))
        others = tops[1 : 1 + len(random)].tolist()
        largest.append(Beside.of(float(tops[0]), others, None if began is None else float(tops[-1])))
        order = np.argsort(-gains, kind="stable")[:LISTED].tolist()
        titles = ["" if at == 0 else corpus[place].title or corpus[place].text for place in order]
        listed.append(
            [
                Pull(named[place], title, float(gains[place]), float(average[place]))
                for place, title in zip(order, titles, strict=True)
            ]
        )
    return Movement(figures[0], figures[1], figures[2], largest[0], largest[1], listed[0], listed[1])


def common_words(trial: Trial) -> list[str]:
    """The words of the model's vocabulary that the queries and their relevant documents use, the commonest first."""
    corpus, tower = trial.bench.dataset.corpus, trial.tower
    right = {id for judged in trial.qrels.values() for id, grade in judged.items() if grade > 0}
    texts = [*trial.texts, *(corpus[corpus.position(id)].content for id in sorted(right)[:WORDS])]
    counts: dict[int, int] = {}
    for row in tower.tokenize(texts, "query"):
        for token in row:
            counts[token] = counts.get(token, 0) + 1
    vocabulary = Vocabulary.of(tower)
    names = dict(zip(vocabulary.ids, vocabulary.names, strict=True))
    common = sorted((token for token in counts if token in names), key=lambda token: (-counts[token], token))
    words = [names[token] for token in common if names[token].isalpha() and len(names[token]) > 2]
    return list(dict.fromkeys(words))[:WORDS]


def judge(trial: Trial, prompts: Sequence[Tensor], done: Done) -> tuple[list[float], list[Floats]]:
    """The mean nDCG@10 under each prompt, and the queries."""
    scores, vectors = [], []
    for prompt in prompts:
        vectors.append(trial.encode(prompt))
        scores.append(mean(trial.scores(trial.rank(vectors[-1]))))
        done(1)
    return scores, vectors

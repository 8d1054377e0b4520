"""Pairs that were made: a data set to train on and to choose by, and where it came from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from retrieval_prompts.data.beir_folder import Dataset
from retrieval_prompts.data.corpus import Corpus, Document, frame
from retrieval_prompts.errors import UserError
from retrieval_prompts.training.training_data import TrainingData

MOST = 2000  # documents that pairs are made of, drawn from the corpus
PAIRS, BM25, TEACHER, JUDGED = "pairs", "bm25", "teacher", "people"  # what dev goes by; the frozen model with BM25
LEAST = 100  # pairs, below which nothing is learned from them
DEV = 3  # every so manyth is set aside to choose by: what prompts add to BM25 is small, and takes many to tell
DEV_MOST = 1000


class TooFew(UserError):
    """These data do not have what pairs would be made of."""


@dataclass(frozen=True)
class Made:
    """What there is to train on.

    Args:
        how: what they were made of: "queries", "titles", "crops" ...
        what: the same in words, with how many there are.
        dataset: its queries, with a train and a dev split of what was made; the corpus that they are compared with.
        judge: who says what is relevant to a dev query: `PAIRS`, `BM25`, `TEACHER` or `JUDGED`.
        teacher: see `TrainingData`.
    """

    how: str
    what: str
    dataset: Dataset
    judge: str = PAIRS
    teacher: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def training(self) -> TrainingData:
        """The pairs as what is trained on."""
        data = self.dataset
        return TrainingData(data.corpus, data.queries, data.qrels["train"], data.qrels["dev"], teacher=self.teacher)

    @property
    def choosing(self) -> str:
        """What chooses, in words."""
        chosen_by = {PAIRS: "held out", BM25: "held out", TEACHER: "by their teacher", JUDGED: "by judged queries"}
        return f"made of {self.how}, {chosen_by[self.judge]}"


def drawn(corpus: Corpus, seed: int, most: int = MOST) -> list[Document]:
    """Documents of the corpus, all of them or a draw of `most`, in its order."""
    if len(corpus) <= most:
        return list(corpus)
    chosen = np.sort(np.random.default_rng(seed).permutation(len(corpus))[:most])
    return [corpus[int(position)] for position in chosen]


def pairs(how: str, dataset: Dataset, documents: Corpus, queries: Mapping[str, Sequence[str]]) -> Made:
    """A data set of made queries, each with the documents that it was made from.

    Args:
        documents: what they are compared with.
        queries: the text of a query -> the ids of its documents.

    Raises TooFew.
    """
    if len(queries) < LEAST:
        raise TooFew(f"only {len(queries):,} {how} can be made into queries, and {LEAST} are needed")
    texts = {f"{how}:{own[0]}": text for text, own in queries.items()}
    qrels = {f"{how}:{own[0]}": dict.fromkeys(own, 1) for own in queries.values()}
    train, dev = split(qrels)
    what = f"{len(queries):,} {how}, each a query for the document that it was made from"
    return Made(how, what, Dataset(dataset.name, dataset.folder, documents, texts, {"train": train, "dev": dev}))


def split(qrels: Mapping[str, Mapping[str, int]]) -> tuple[dict[str, dict[str, int]], dict[str, dict[str, int]]]:
    """(train, dev): who goes depends on the id alone."""
    order = sorted(qrels, key=lambda query: hashlib.sha256(query.encode()).digest())
    dev = set(order[: min(len(order) // DEV, DEV_MOST)])
    return (
        {query: dict(judged) for query, judged in qrels.items() if query not in dev},
        {query: dict(judged) for query, judged in qrels.items() if query in dev},
    )


def corpus_of(documents: Iterable[Document], path: Path) -> Corpus:
    """Documents in memory as a corpus; `path` names them in messages."""
    kept = list(documents)
    digest = hashlib.sha256()
    for document in kept:
        digest.update(frame(document))
    return Corpus(path, [document.id for document in kept], digest.hexdigest(), kept)

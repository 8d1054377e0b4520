"""What prompts and baselines are trained on: a corpus, and its queries with a train and a dev split."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from retrieval_prompts.data.beir_folder import Dataset, hold_out
from retrieval_prompts.data.corpus import Corpus
from retrieval_prompts.data.judgements import Qrels

DEV_FRACTION = 0.1
# Dev queries below which training queries are cross-validated instead. Scores of single queries differ between two
# systems with a deviation of 0.2 to 0.3: 50 queries find a gain of 10 points, and miss most of those that prompts make
FEW_DEV = 50


@dataclass(frozen=True)
class TrainingData:
    """A corpus with queries to learn from and queries to choose by.

    Args:
        queries: query id -> text, of at least the train and dev queries.
        train, dev: judgements by query id; documents graded above 0 are relevant.
        held_out: dev was held out of train, for the data has no dev split.
        teacher: query id -> document id -> probability, where training follows a ranking and not judgements: for all
            training queries, or none.
    """

    corpus: Corpus
    queries: dict[str, str]
    train: Qrels
    dev: Qrels
    held_out: bool = False
    teacher: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @classmethod
    def of(cls, dataset: Dataset, fraction: float = DEV_FRACTION) -> TrainingData:
        """The data's own train and dev split, or dev held out of train; to a small dev split of large data it is added.

        The part that is held out does not depend on any seed, so runs with several seeds share it.

        Raises:
            UserError: when there is no train split.
        """
        _, train = dataset.split("train")
        dev = dataset.split("dev")[1] if "dev" in dataset.qrels else {}
        if dev and (len(dev) >= FEW_DEV or len(train) * fraction < FEW_DEV):
            return cls(dataset.corpus, dataset.queries, train, dev)
        train, more = hold_out(train, fraction, seed=0)
        return cls(dataset.corpus, dataset.queries, train, {**dev, **more}, held_out=True)

    @property
    def judged(self) -> Qrels:
        """Train and dev."""
        return {**self.train, **self.dev}

    @property
    def few(self) -> bool:
        """Whether dev is too small to choose by."""
        return len(self.dev) < FEW_DEV

    def whole(self) -> TrainingData:
        """Everything to train on, nothing to choose by."""
        return replace(self, train=self.judged, dev={})

    def unseen(self) -> list[str]:
        """Dev queries none of whose relevant documents is relevant to a training query.

        What is gained on the others may be memory of documents.
        """
        trained = {doc for judged in self.train.values() for doc in relevant(judged)}
        return [query for query, judged in self.dev.items() if trained.isdisjoint(relevant(judged))]

    def folds(self, count: int) -> Iterator[TrainingData]:
        """Cross-validation over train and dev: each part once as dev, the rest as train.

        Queries that share a relevant document stay together, so that a part asks for documents which training has not
        seen. Where most queries hang together by their documents that cannot be; they are then divided one by one.
        Neither a seed nor the order of the file counts.
        """
        judged = self.judged
        groups = _groups(judged)
        if max(map(len, groups)) > len(judged) / 2:
            groups = [[query] for query in judged]
        parts: list[list[str]] = [[] for _ in range(min(count, len(groups)))]
        for group in sorted(groups, key=lambda group: (-len(group), _hash(group))):
            min(parts, key=len).extend(group)
        for part in parts:
            yield replace(
                self,
                train={query: grades for query, grades in judged.items() if query not in part},
                dev={query: judged[query] for query in part},
            )


def relevant(judged: dict[str, int]) -> list[str]:
    """The documents with a grade above 0."""
    return [doc for doc, grade in judged.items() if grade > 0]


def _groups(qrels: Qrels) -> list[list[str]]:
    """Queries that are connected by relevant documents."""
    group_of: dict[str, list[str]] = {}  # document -> the queries of its group
    for query, judged in qrels.items():
        joined = [query]
        for found in {id(group): group for doc in relevant(judged) if (group := group_of.get(doc))}.values():
            joined.extend(found)
        for member in joined:
            group_of |= dict.fromkeys(relevant(qrels[member]), joined)
    return list({id(group): group for group in group_of.values()}.values())


def _hash(group: list[str]) -> bytes:
    return hashlib.sha256(min(group).encode()).digest()

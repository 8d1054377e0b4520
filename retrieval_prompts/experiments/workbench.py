"""One data set under one frozen model: what all systems on it share, made once, and how they are told apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.data.beir_folder import Dataset
from retrieval_prompts.data.judgements import Run
from retrieval_prompts.evaluation.bm25 import bm25_run
from retrieval_prompts.evaluation.metrics import HEADLINE, drop_identical
from retrieval_prompts.evaluation.significance import Comparison, compare
from retrieval_prompts.experiments.stopwatch import Stopwatch
from retrieval_prompts.towers.text import TextTower
from retrieval_prompts.training.training_data import TrainingData
from retrieval_prompts.vectors.blocks import VectorBlocks
from retrieval_prompts.vectors.index import Index

TOP = 100  # documents kept of each ranking


@dataclass
class Workbench:
    """The documents' frozen vectors, their index and the training data, each made when it is first asked for.

    Args:
        tower: the frozen model.
        cache: the folder of document vectors; None: the user's cache.
        precision: of the products when documents are encoded: "float32" or "bfloat16".
        factory: FAISS index string.
        scored: a split that is neither trained on nor chosen by, whatever its name.
        watch: the time that was spent here.
    """

    tower: TextTower
    dataset: Dataset
    cache: Path | None = None
    precision: str = "float32"
    factory: str = "Flat"
    scored: str | None = None
    watch: Stopwatch = field(default_factory=Stopwatch)

    @classmethod
    def of(cls, tower: TextTower, data: Dataset | Workbench) -> Workbench:
        """The workbench that is given, or a new one for a data set."""
        return data if isinstance(data, Workbench) else cls(tower, data)

    @cached_property
    def frozen(self) -> BiEncoder:
        return BiEncoder(self.tower)

    @cached_property
    def training(self) -> TrainingData:
        """Raises UserError when there is nothing to train on."""
        qrels = {split: found for split, found in self.dataset.qrels.items() if split != self.scored}
        return TrainingData.of(replace(self.dataset, qrels=qrels))

    @cached_property
    def documents(self) -> VectorBlocks:
        with self.watch("encode documents"):
            return self.frozen.encode_corpus(self.dataset.corpus, self.cache, precision=self.precision)

    @cached_property
    def index(self) -> Index:
        """Over the frozen documents."""
        return self.index_of(self.documents, self.frozen)

    def own_documents(self, biencoder: BiEncoder) -> VectorBlocks | None:
        """The documents encoded with a document prompt; None where the bi-encoder's are the frozen ones."""
        if biencoder.identity() == self.frozen.identity():
            return None
        with self.watch("re-encode documents"):
            return biencoder.encode_corpus(self.dataset.corpus, self.cache, precision=self.precision)

    def index_of(self, documents: VectorBlocks, biencoder: BiEncoder) -> Index:
        ids = self.dataset.corpus.ids
        return Index.build(documents, None, ids, encoder=biencoder.identity(), factory=self.factory)

    def bm25(self, queries: Mapping[str, str], k: int) -> Run:
        """The k best documents of each query, or one more: the document of its own id is left out of so many."""
        with self.watch("bm25"):
            texts = (document.content for document in self.dataset.corpus)
            return drop_identical(bm25_run(texts, self.dataset.corpus.ids, dict(queries), k + 1))

    def unseen_queries(self, split: str) -> list[str]:
        """Queries of a split none of whose relevant documents is relevant to a training query.

        A gain on the others may be memory of documents; a gain on these is not.
        """
        train = self.dataset.qrels.get("train", {})
        trained = {doc for judged in train.values() for doc, grade in judged.items() if grade > 0}
        return [
            query
            for query, judged in self.dataset.split(split)[1].items()
            if not any(grade > 0 and doc in trained for doc, grade in judged.items())
        ]


def search_run(
    biencoder: BiEncoder,
    index: Index,
    queries: Mapping[str, str],
    k: int = TOP,
    *,
    nprobe: int | None = None,
    ef_search: int | None = None,
) -> Run:
    """The k best documents of each query, without a document of the query's own id (BEIR's convention)."""
    vectors = biencoder.query_vectors(list(queries.values()))
    return index.rank(list(queries), vectors, k, nprobe=nprobe, ef_search=ef_search)


def paired_tests(
    scores: Mapping[str, Mapping[str, float]], compared: Iterable[str], trained: Iterable[str], unseen: Sequence[str]
) -> dict[str, Comparison]:
    """Systems against the frozen model, the soft prompts against BM25, and what was trained once more against the
    frozen model, on the `unseen` queries if there are any.

    Args:
        scores: system -> query -> nDCG@10.
    """
    tests = {f"{system}_vs_frozen": compare(scores["frozen"], scores[system], HEADLINE) for system in compared}
    if {"tuned", "bm25"} <= scores.keys():
        tests["tuned_vs_bm25"] = compare(scores["bm25"], scores["tuned"], HEADLINE)
    for system in trained if unseen else ():
        before, after = ({query: scores[each][query] for query in unseen} for each in ("frozen", system))
        tests[f"{system}_vs_frozen_unseen_documents"] = compare(before, after, HEADLINE)
    return tests

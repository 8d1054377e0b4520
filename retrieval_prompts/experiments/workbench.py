"""One data set under one frozen model: what all systems on it share, made once, and how they are told apart."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from statistics import fmean

import numpy as np
import torch

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.data.beir_folder import Dataset
from retrieval_prompts.data.groups import drop_own, rank_documents
from retrieval_prompts.data.judgements import Qrels, Run
from retrieval_prompts.errors import DataWarning, UserError
from retrieval_prompts.evaluation.bm25 import BM25Index, NoWords
from retrieval_prompts.evaluation.hybrid import HybridIndex
from retrieval_prompts.evaluation.metrics import HEADLINE
from retrieval_prompts.evaluation.significance import Comparison, compare
from retrieval_prompts.experiments.pairs.made import Made
from retrieval_prompts.experiments.records.stopwatch import Stopwatch
from retrieval_prompts.prompts.feedback import RECORDED, SAMPLE, FeedbackPrompt, Start, regress
from retrieval_prompts.towers.text import Floats, TextTower
from retrieval_prompts.training.loop import Training
from retrieval_prompts.training.retrieval import train
from retrieval_prompts.training.settings import TuneSettings
from retrieval_prompts.training.training_data import TrainingData
from retrieval_prompts.vectors.blocks import VectorBlocks
from retrieval_prompts.vectors.given import Given, given_vectors
from retrieval_prompts.vectors.index import Index

TOP = 100  # documents kept of each ranking
UNTUNED = ("frozen", "bm25", "frozen+bm25")


@dataclass
class Workbench:
    """The documents' frozen vectors, their index and the training data, each made when it is first asked for.

    Args:
        tower: the frozen model.
        cache: the folder of document vectors; None: the user's cache.
        precision: of the products when documents are encoded: "float32" or "bfloat16".
        factory: FAISS index string.
        given: the documents' frozen vectors, where they are not to be encoded (see `vectors.given`); checked first.
        scored: a split that is neither trained on nor chosen by, whatever its name.
        watch: the time that was spent here.
        made: the pairs that the data set is of, where they were made.
    """

    tower: TextTower
    dataset: Dataset
    cache: Path | None = None
    precision: str = "float32"
    factory: str = "Flat"
    scored: str | None = None
    given: Given | None = None
    watch: Stopwatch = field(default_factory=Stopwatch)
    made: Made | None = None
    _queries: dict[str, Floats] = field(default_factory=dict, repr=False)  # frozen, by text
    _documents: dict[str, VectorBlocks] = field(default_factory=dict, repr=False)  # by the identity of their prompt
    _indexes: dict[str, Index] = field(default_factory=dict, repr=False)
    _starts: dict[str, Start] = field(default_factory=dict, repr=False)  # by the kind of prompt

    @classmethod
    def of(cls, tower: TextTower, data: Dataset | Workbench, documents: Given | None = None) -> Workbench:
        """The workbench that is given, or a new one for a data set and perhaps its documents' vectors."""
        if not isinstance(data, Workbench):
            return cls(tower, data, given=documents)
        if documents is not None:
            raise UserError("a workbench has its documents already; give them to it: Workbench(..., given=documents)")
        return data

    @cached_property
    def frozen(self) -> BiEncoder:
        return BiEncoder(self.tower)

    def frozen_queries(self, texts: Iterable[str]) -> Floats:
        """The frozen model's vectors of queries (n, dimension), as it gives them; each text is encoded once."""
        wanted = list(texts)
        new = [text for text in dict.fromkeys(wanted) if text not in self._queries]
        self._queries |= dict(zip(new, self.frozen.encode_query(new), strict=True))
        return np.stack([self._queries[text] for text in wanted])

    def query_vectors(self, biencoder: BiEncoder, texts: Iterable[str]) -> Floats:
        """Queries ready to be compared (n, dimension); without a prompt they are the frozen ones."""
        if "query" in biencoder.prompts and biencoder.strength > 0:
            return self.bind(biencoder).query_vectors(list(texts))
        return self.tower.comparable(self.frozen_queries(texts))

    @cached_property
    def training(self) -> TrainingData:
        """Raises UserError when there is nothing to train on."""
        if self.made is not None:
            return self.made.training
        qrels = {split: found for split, found in self.dataset.qrels.items() if split != self.scored}
        return TrainingData.of(replace(self.dataset, qrels=qrels))

    def learning(self, made: Made) -> Workbench:
        """Where prompts for these data are trained on made pairs; what is known of the same documents goes along."""
        other = replace(self, dataset=made.dataset, scored=None, made=made)
        if made.dataset.corpus is self.dataset.corpus:
            vars(other).update({name: getattr(self, name) for name in ("documents", "index", "words")})
        else:
            other.given, other._documents, other._indexes, other._starts = None, {}, {}, {}
        return other

    @cached_property
    def documents(self) -> VectorBlocks:
        if self.given is not None:
            if isinstance(self.given, Index):
                self.given.check_encoder(self.frozen.identity())
            with self.watch("check documents"):
                return given_vectors(self.tower, self.given, self.dataset.corpus)
        with self.watch("encode documents"):
            return self.frozen.encode_corpus(self.dataset.corpus, self.cache, precision=self.precision)

    @cached_property
    def index(self) -> Index:
        """Over the frozen documents."""
        return self.index_of(self.documents, self.frozen)

    def own_documents(self, biencoder: BiEncoder) -> VectorBlocks | None:
        """The documents encoded with a document prompt; None where the bi-encoder's are the frozen ones."""
        if (prompt := biencoder.identity()["document_prompt"]) is None:
            return None
        if prompt not in self._documents:
            with self.watch("re-encode documents"):
                found = biencoder.encode_corpus(self.dataset.corpus, self.cache, precision=self.precision)
                self._documents[prompt] = found
        return self._documents[prompt]

    def index_for(self, biencoder: BiEncoder) -> Index:
        """Over the documents as this bi-encoder encodes them."""
        if (own := self.own_documents(biencoder)) is None:
            return self.index
        prompt = biencoder.identity()["document_prompt"]
        if prompt not in self._indexes:
            self._indexes[prompt] = self.index_of(own, biencoder)
        return self._indexes[prompt]

    def index_of(self, documents: VectorBlocks, biencoder: BiEncoder) -> Index:
        ids = self.dataset.corpus.ids
        index = Index.build(documents, None, ids, encoder=biencoder.identity(), factory=self.factory)
        index.first_of = self.dataset.corpus.first_of
        return index

    @cached_property
    def words(self) -> BM25Index | None:
        """The words of the documents; None where they have none."""
        with self.watch("bm25"):
            texts = (document.content for document in self.dataset.corpus)
            try:
                return BM25Index.build(texts, self.dataset.corpus.ids)
            except NoWords as error:
                warnings.warn(f"{self.dataset.name}: {error}; there is no BM25 here", DataWarning, stacklevel=2)
                return None

    def bm25(self, queries: Mapping[str, str], k: int) -> Run:
        """The k best documents of each query, without the document of its own id."""
        with self.watch("bm25"):
            words = self.words
            if words is None:
                return {query: {} for query in queries}
            corpus = self.dataset.corpus
            found = rank_documents(lambda depth: words.run(queries, depth), k + 1, len(corpus), corpus.first_of)
            found = drop_own(found, corpus.first_of)
            return {query: dict(islice(hits.items(), k)) for query, hits in found.items()}

    def hybrid_of(self, index: Index) -> HybridIndex | None:
        """An index of these documents with their words beside it."""
        return HybridIndex(index, self.words) if self.words else None

    def choosing(self, split: str | None = None) -> tuple[dict[str, str], Qrels]:
        """The queries to choose by, and their judgements: dev, or train and dev where dev is small; none where the data
        have neither. Those of `split` are not among them."""
        if "train" in self.dataset.qrels and split != "train":
            qrels = self.training.judged if self.training.few else self.training.dev
        else:
            qrels = self.dataset.split("dev")[1] if "dev" in self.dataset.qrels else {}
        scored = self.dataset.qrels.get(split, {}) if split is not None else {}
        qrels = {query: judged for query, judged in qrels.items() if query not in scored}
        return {query: self.dataset.queries[query] for query in qrels}, qrels

    def train(
        self, biencoder: BiEncoder, data: TrainingData, settings: TuneSettings, checkpoint: Path | None
    ) -> Training:
        """Train prompts on a part of these data; see `training.retrieval.train`. Dev is scored with an exact index."""
        index: Index | HybridIndex | None = self.index if self.factory == "Flat" else None
        if biencoder.feedback is not None:
            index = self._read_by(biencoder.feedback)
        return train(biencoder, data, settings, documents=self.documents, index=index, checkpoint=checkpoint)

    def _read_by(self, prompt: FeedbackPrompt) -> Index | HybridIndex:
        """The frozen documents, with their words where there are some and the prompt's first search uses them."""
        return (self.hybrid_of(self.index) if prompt.bm25_weight > 0 else None) or self.index

    def bind(self, biencoder: BiEncoder) -> BiEncoder:
        """Let prompts that read documents find them here; returns the bi-encoder."""
        known, reads = biencoder.first_pass, biencoder.feedback
        if reads is not None and (known is None or known.index is not self.index):
            biencoder.bind(self._read_by(reads))
        return biencoder

    def attach(self, biencoder: BiEncoder, settings: TuneSettings) -> BiEncoder:
        """Attach fresh prompts, those that read documents with a start that is made from these; returns the
        bi-encoder."""
        return biencoder.attach(settings, start=self.start(settings.kind) if settings.encoder == "feedback" else None)

    def start(self, kind: str) -> Start:
        """Where the map of a feedback prompt starts, by a sample of the documents."""
        if kind not in self._starts:
            most = SAMPLE if kind == "input" else RECORDED
            count = len(self.dataset.corpus)
            chosen = np.sort(np.random.default_rng(0).permutation(count)[:most]).astype(np.int64)
            texts = [self.dataset.corpus[int(position)].content for position in chosen]
            vectors = torch.from_numpy(self.documents.rows(chosen)).to(self.tower.device)
            self._starts[kind] = regress(self.tower, kind, vectors, texts)
        return self._starts[kind]

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


def strongest_untuned(scores: Mapping[str, Mapping[str, float]]) -> str:
    """The best of what a user has without any training, by its mean; "frozen" where nothing else was run."""
    there = [system for system in UNTUNED if system in scores]
    return max(there, key=lambda system: fmean(scores[system].values()))


def paired_tests(
    scores: Mapping[str, Mapping[str, float]], compared: Iterable[str], trained: Iterable[str], unseen: Sequence[str]
) -> dict[str, Comparison]:
    """Systems against the frozen model; the soft prompts against BM25, and against the strongest of what needs no
    training; and what was trained once more on the `unseen` queries, if there are any.

    Args:
        scores: system -> query -> nDCG@10.
    """
    strongest = strongest_untuned(scores)
    pairs = [(system, "frozen") for system in compared]
    if {"tuned", "bm25"} <= scores.keys():
        pairs.append(("tuned", "bm25"))
    prompted = [system for system in ("tuned", "tuned+bm25") if system in scores]
    pairs += [(system, strongest) for system in prompted if (system, strongest) not in pairs]
    tests = {f"{a}_vs_{b}": compare(scores[b], scores[a], HEADLINE) for a, b in pairs}
    again = [(system, "frozen") for system in trained] if unseen else []
    if again and "frozen+bm25" in scores:
        again.append(("frozen+bm25", "frozen"))
    again += [(system, strongest) for system in (prompted if again else ()) if (system, strongest) not in again]
    for a, b in again:
        after, before = ({query: scores[each][query] for query in unseen} for each in (a, b))
        tests[f"{a}_vs_{b}_unseen_documents"] = compare(before, after, HEADLINE)
    return tests

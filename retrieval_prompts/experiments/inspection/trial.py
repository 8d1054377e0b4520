"""A query prompt on the queries of one split: what it is made of, and what the frozen model ranks with other vectors in
its place. Documents are encoded once, as they are for the prompts themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.data.judgements import Qrels, Run
from retrieval_prompts.evaluation.metrics import HEADLINE, per_query
from retrieval_prompts.experiments.inspection.nearest import Vocabulary, own_vectors
from retrieval_prompts.experiments.inspection.null import initial_prompt, random_prompt
from retrieval_prompts.experiments.workbench import TOP, Workbench
from retrieval_prompts.prompts.strength import between
from retrieval_prompts.towers.text import Floats
from retrieval_prompts.vectors.encode import encode_texts

Scores = dict[str, float]  # query -> nDCG@10


class Trial:
    """Prompts on queries. The strength is that of the prompts; where it is 0, for dev has rejected them, it is 1.

    Args:
        bench: of the data; biencoder: with a prompt on the query side.
        queries, qrels: those to ask, and their judgements.
    """

    def __init__(self, bench: Workbench, biencoder: BiEncoder, queries: dict[str, str], qrels: Qrels) -> None:
        self.bench, self.biencoder, self.tower = bench, biencoder, bench.tower
        self.ids, self.texts, self.qrels = list(queries), list(queries.values()), qrels
        self.strength = biencoder.strength or 1.0
        self.index = bench.index_for(biencoder)
        self.frozen = bench.frozen_queries(self.texts)

    @cached_property
    def found(self) -> np.ndarray:
        """The positions (queries, documents) of what a feedback prompt reads; none for others."""
        if self.biencoder.feedback is None:
            return np.empty((len(self.ids), 0), dtype=np.int64)
        first = self.bench.bind(self.biencoder).first_pass
        assert first is not None
        return first.positions(self.texts, self.tower.comparable(self.frozen))

    @cached_property
    def prompt(self) -> Tensor:
        """(layers, length, width); of a feedback prompt (queries, layers, length, width), static vectors first."""
        return self.made_from(self.found)

    @torch.no_grad()
    def made_from(self, positions: np.ndarray) -> Tensor:
        """The prompt as it is made from documents at positions (queries, documents), where it reads any."""
        first = self.biencoder.first_pass
        documents = None
        if self.biencoder.feedback is not None and first is not None:
            documents = torch.from_numpy(first.vectors(positions)).to(self.tower.device)
        made = self.biencoder.prompt("query", documents)
        assert made is not None
        return made.detach()

    @property
    def static(self) -> int:
        """How many of the vectors are the same for every query; they come first."""
        reads = self.biencoder.feedback
        return self.prompt.shape[-2] - (reads.documents if reads is not None else 0)

    @property
    def names(self) -> list[str]:
        """What the vectors are called: by their number, or the rank of the document that they are made from."""
        rest = self.prompt.shape[-2] - self.static
        return [f"vector {at}" for at in range(1, self.static + 1)] + [f"document {at}" for at in range(1, rest + 1)]

    def encode(self, prompt: Tensor | None) -> Floats:
        """The queries under a prompt (None: none), ready to be compared."""
        if prompt is None or prompt.shape[-2] == 0:
            return self.tower.comparable(self.frozen)
        found = encode_texts(self.tower, self.texts, "query", self.biencoder.kind, prompt)
        if self.strength < 1:
            found = between(self.frozen, found, self.strength, unit=self.tower.unit_length)
        return self.tower.comparable(found)

    def rank(self, vectors: Floats) -> Run:
        return self.index.rank(self.ids, vectors, TOP)

    def scores(self, run: Run) -> Scores:
        return per_query(self.qrels, run, [HEADLINE])[HEADLINE]

    def random(self, seed: int) -> Tensor:
        """A random prompt with vectors of the lengths of this one's."""
        return random_prompt(self.tower, self.biencoder.kind, self.prompt, seed)

    @cached_property
    def initial(self) -> Tensor | None:
        """The prompt before training, where that is known."""
        return self.began_from(self.found)

    def began_from(self, positions: np.ndarray) -> Tensor | None:
        """See `initial`; of a feedback prompt as its map made it of documents at positions (queries, documents)."""
        began = initial_prompt(self.biencoder, "query", own_vectors(self.biencoder, "query"))
        reads = self.biencoder.feedback
        if began is None or reads is None:
            return began
        if self.biencoder.training_record.get("corpus") != self.bench.dataset.corpus.fingerprint:
            return None
        start = self.bench.start(self.biencoder.kind)
        vectors = torch.from_numpy(self.bench.documents.rows(positions.reshape(-1))).to(self.tower.device)
        made = (vectors @ start.map + start.bias).unflatten(1, (began.shape[0], -1))
        made = made.unflatten(0, positions.shape).transpose(1, 2)  # (queries, layers, documents, width)
        return torch.cat([began.expand(len(made), -1, -1, -1), made], dim=2)

    def snapped(self, prompt: Tensor, vocabulary: Vocabulary) -> Tensor:
        """An input prompt with the nearest word in the place of every static vector."""
        own = prompt[..., : self.static, :]
        _, places = vocabulary.nearest(own.reshape(-1, own.shape[-1])[: self.static], 1)
        words = vocabulary.rows(places[:, 0]).view(1, self.static, -1).to(prompt)
        return torch.cat([words.expand_as(own), prompt[..., self.static :, :]], dim=-2)


def without(prompt: Tensor, place: int) -> Tensor:
    """A prompt (..., length, width) without one of its vectors."""
    return torch.cat([prompt[..., :place, :], prompt[..., place + 1 :, :]], dim=-2)


def each_without(prompt: Tensor) -> Iterator[Tensor]:
    """The prompt without each of its vectors in turn."""
    return (without(prompt, place) for place in range(prompt.shape[-2]))


def turned(a: Floats, b: Floats) -> np.ndarray:
    """How far each row of one is turned from that of the other: 1 - cosine (n,)."""
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosines = np.einsum("nd,nd->n", a, b) / np.maximum(lengths, 1e-12)
    return np.asarray(np.maximum(1 - cosines, 0.0))  # rounding may leave a little less


def mean(scores: Scores) -> float:
    return float(np.mean(list(scores.values())))

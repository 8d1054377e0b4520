"""The words of the vocabulary nearest to a prompt's vectors, beside those nearest to random ones.

In a space of hundreds of dimensions everything has a nearest word. A word says something of a vector only where it is
nearer than the nearest words of vectors that mean nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from retrieval_prompts.evaluation.significance import ALPHA, adjust
from retrieval_prompts.experiments.inspection.null import initial_prompt, random_prompt
from retrieval_prompts.prompts.mixture import MixturePrompt
from retrieval_prompts.towers.text import is_word

if TYPE_CHECKING:
    from retrieval_prompts.biencoder import BiEncoder
    from retrieval_prompts.towers.text import TextTower

BLOCK = 8192  # vocabulary rows at once: bounds the memory of a large vocabulary
ROWS = 1024  # vectors at once
DRAWN = 999  # random vectors; the least p is one in a thousand
MOST = 20_000  # where prompts have so many vectors that it takes more to find one of them near
SHOWN = 2  # of them with their words


@dataclass(frozen=True)
class Vocabulary:
    """The words that a vector could be: their ids, how they are written, and the table that ids are rows of."""

    ids: list[int]
    names: list[str]
    table: Tensor

    @classmethod
    def of(cls, tower: TextTower) -> Vocabulary:
        """All of a tower's but special tokens and placeholders."""
        table = tower.embeddings.weight.detach()
        special = set(tower.tokenizer.all_special_ids)
        tokens = tower.tokenizer.convert_ids_to_tokens(list(range(min(len(tower.tokenizer), len(table)))))
        ids = [at for at, token in enumerate(tokens) if at not in special and is_word(token)]
        return cls(ids, [shown(tokens[at]) for at in ids], table)

    def rows(self, places: Sequence[int] | Tensor) -> Tensor:
        """The embeddings (n, width), in float32, of words at places of the list."""
        ids = torch.as_tensor(self.ids, device=self.table.device)
        return self.table[ids[torch.as_tensor(places, dtype=torch.long, device=ids.device)]].float()

    @cached_property
    def length(self) -> float:
        """The mean length of a word's vector."""
        ids = torch.as_tensor(self.ids, device=self.table.device)
        parts = [self.table[part].float().norm(dim=1).sum() for part in ids.split(BLOCK)]
        return float(torch.stack(parts).sum()) / max(1, len(ids))

    def nearest(self, vectors: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Vectors (P, H) -> cosines and places (P, count) of the nearest words, fewer where there are fewer."""
        if len(vectors) > ROWS:
            parts = [self.nearest(part, count) for part in vectors.split(ROWS)]
            return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])
        vectors = normalize(vectors.detach().to(self.table.device).float(), dim=1)
        best = torch.empty(len(vectors), 0, device=vectors.device)
        places = torch.empty(len(vectors), 0, dtype=torch.long, device=vectors.device)
        ids = torch.as_tensor(self.ids, dtype=torch.long, device=vectors.device)
        for start in range(0, len(ids), BLOCK):
            part = ids[start : start + BLOCK]
            cosines = vectors @ normalize(self.table[part].float(), dim=1).T
            here = torch.arange(start, start + len(part), device=vectors.device)
            best = torch.cat([best, cosines], dim=1)
            places = torch.cat([places, here.expand(len(vectors), -1)], dim=1)
            best, order = best.topk(min(count, best.shape[1]), dim=1)
            places = places.gather(1, order)
        return best, places

    def words(self, vectors: Tensor, count: int) -> list[list[Word]]:
        """The nearest words of each vector (P, H), nearest first."""
        cosines, places = self.nearest(vectors, count)
        found = []
        for vector, near, at in zip(vectors.detach().float(), cosines.tolist(), places, strict=True):
            distances = (self.rows(at) - vector.to(self.table.device)).norm(dim=1).tolist()
            named = zip(at.tolist(), near, distances, strict=True)
            found.append([Word(self.names[place], cosine, distance) for place, cosine, distance in named])
        return found


@dataclass(frozen=True)
class Word:
    """A word near a vector: the cosine of its embedding to the vector, and their distance."""

    word: str
    cosine: float
    distance: float


@dataclass(frozen=True)
class VectorWords:
    """One vector beside random ones of its length.

    Args:
        words: nearest first.
        length: of the vector; a word's is in `PromptWords`.
        null_distance: the median distance of random vectors to their nearest words.
        p_value: the share of random vectors that are as near to a word, corrected for the number of vectors (Holm).
        initial: the nearest word before training; None where that is not known.
        turned: the cosine of the vector to the one that it was before training.
        started: the cosine of the first of the words to the vector before training.
    """

    words: list[Word]
    length: float
    null_distance: float
    p_value: float
    initial: Word | None = None
    turned: float | None = None
    started: float | None = None


@dataclass(frozen=True)
class PromptWords:
    """The vectors of one prompt in words.

    Args:
        null_cosine: of random vectors to their nearest words: the median, and what one in twenty exceeds.
        drawn: how many random vectors.
        word_length: the mean length of a word's vector.
        random: the nearest words of some random vectors.
    """

    vectors: list[VectorWords]
    null_cosine: tuple[float, float]
    drawn: int
    word_length: float
    random: list[list[Word]] = field(default_factory=list)

    @property
    def near(self) -> list[int]:
        """The numbers, from 1, of vectors that are nearer to a word than random ones."""
        return [number for number, vector in enumerate(self.vectors, 1) if vector.p_value < ALPHA]

    @property
    def kept(self) -> list[int]:
        """Those of them that began near to that word already: nearer than nineteen of twenty random vectors."""
        starts = {number: self.vectors[number - 1].started for number in self.near}
        return [number for number, start in starts.items() if start is not None and start > self.null_cosine[1]]

    def sentence(self) -> str:
        """What the words are worth."""
        cosines = [vector.words[0].cosine for vector in self.vectors if vector.words]
        if not cosines:
            return "There is no word to compare with."
        reach = f"{min(cosines):.2f} to {max(cosines):.2f}" if len(cosines) > 1 else f"{cosines[0]:.2f}"
        middle, high = self.null_cosine
        null = f"random vectors have {middle:.2f}, one in twenty more than {high:.2f}"
        if not self.near and len(self.vectors) >= ALPHA * (self.drawn + 1):
            return (
                f"Whether these words mean something cannot be told for {len(self.vectors):,} vectors at once beside "
                f"{self.drawn:,} random ones (cosine {reach}; {null})."
            )
        if not self.near:
            return (
                f"These words mean nothing: no vector is nearer to a word than random vectors are (cosine {reach}; "
                f"{null})."
            )
        share = f"{len(self.near)} of {len(self.vectors)} vectors are nearer to a word than random ones"
        told = f"{share} (cosine {reach}; {null})"
        if len(self.kept) == len(self.near):
            return f"{told}, and each to a word that it began at or near: training put no words there."
        if self.kept:
            return f"{told}; {len(self.kept)} of them to a word that they began at or near."
        return f"{told}. Whether the words stand for the vectors, only using them in their place can show."

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "near": self.near, "sentence": self.sentence()}


def prompt_words(biencoder: BiEncoder, count: int = 5) -> dict[str, PromptWords]:
    """Side -> the words of an input prompt.

    Special tokens are left out. Empty for prefixes: their keys and values live in spaces of the layers' own, where a
    word has no place until it stands in a sentence; see `without_words`.
    """
    if biencoder.kind != "input" or not biencoder.prompts:
        return {}
    vocabulary = Vocabulary.of(biencoder.tower)
    found = {}
    for side in biencoder.prompts:
        vectors = own_vectors(biencoder, side)
        began = initial_prompt(biencoder, side, vectors)
        drawn = enough(vectors.shape[-2])
        random = random_prompt(biencoder.tower, "input", vectors.new_ones(1, drawn, vectors.shape[-1]), 0)
        found[side] = in_words(vocabulary, vectors[0], random[0], None if began is None else began[0], count)
    return found


def enough(vectors: int) -> int:
    """How many random vectors can tell that a single one of these is near to a word, corrected for their number."""
    return min(MOST, max(DRAWN, math.ceil(vectors / ALPHA)))


def in_words(
    vocabulary: Vocabulary, vectors: Tensor, random: Tensor, began: Tensor | None = None, count: int = 5
) -> PromptWords:
    """Vectors (P, H) in words, beside random directions (n, H) and what they were before training (P, H)."""
    lengths = vectors.float().norm(dim=1).tolist()
    if not vocabulary.ids:
        none = [VectorWords([], length, 0.0, 1.0) for length in lengths]
        return PromptWords(none, (0.0, 0.0), 0, 0.0)
    near, places = (each[:, 0] for each in vocabulary.nearest(random, 1))
    words = vocabulary.words(vectors, count)
    raw = [(int((near >= each[0].cosine).sum()) + 1) / (len(near) + 1) for each in words]
    p_values = adjust(raw, "holm")
    theirs = vocabulary.rows(places).norm(dim=1)
    before = vocabulary.words(began, 1) if began is not None else None
    turned, started = None, None
    if began is not None:
        firsts = vocabulary.rows(vocabulary.nearest(vectors, 1)[1][:, 0])
        started = torch.cosine_similarity(firsts, began.to(firsts).float(), dim=1).tolist()
        turned = torch.cosine_similarity(vectors.float(), began.to(vectors).float(), dim=1).tolist()
    made = []
    for at, length in enumerate(lengths):
        distances = (length**2 + theirs**2 - 2 * length * theirs * near).clamp_min(0).sqrt()
        first = before[at][0] if before else None
        made.append(
            VectorWords(
                words[at],
                length,
                float(distances.median()),
                p_values[at],
                first,
                turned[at] if turned else None,
                started[at] if started else None,
            )
        )
    edges = torch.quantile(near.double(), torch.tensor([0.5, 0.95], dtype=torch.double, device=near.device)).tolist()
    shown_ = vocabulary.words(random[:SHOWN], count)
    return PromptWords(made, (edges[0], edges[1]), len(near), vocabulary.length, shown_)


def own_vectors(biencoder: BiEncoder, side: str) -> Tensor:
    """The vectors (layers, length, width) of a side, without those that are made from documents; of a mixture those of
    all its parts, one after the other."""
    own = biencoder.made_for_each if side == "query" else None
    vectors = own.flat() if isinstance(own, MixturePrompt) else own.vectors if own else biencoder.prompt(side)
    assert vectors is not None
    return vectors.detach()


def without_words(biencoder: BiEncoder) -> str:
    """Why `prompt_words` has nothing to say, as a note for the report; empty where it has."""
    if not biencoder.prompts:
        return "There is no prompt to put into words."
    if biencoder.kind != "input":
        return (
            "A prefix is made of keys and values of every layer, not of word embeddings. A word's key depends on the "
            "words around it, so there is no list of words that it could be compared with."
        )
    return ""


def shown(token: str) -> str:
    """A token as a reader knows it: without the signs of WordPiece, SentencePiece and byte-level BPE for a space."""
    if token.startswith("##"):
        return f"-{token[2:]}"
    return token.replace("▁", " ").replace("Ġ", " ").strip() or "␣"

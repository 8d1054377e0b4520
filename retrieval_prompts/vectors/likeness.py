"""Whether vectors are what a frozen model makes of texts: a check on a sample, and where they are not, what they are.

What was done otherwise is found by doing it: the model is run on a few of the texts with other pooling, other words
before them, cut elsewhere, and the one way that gives the vectors is named. Vectors in another order are found where
they are. Knows no files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from retrieval_prompts.data.corpus import Corpus, Document
from retrieval_prompts.errors import UserError, few
from retrieval_prompts.towers.text import Floats, TextTower, padded, unit_length
from retrieval_prompts.vectors.encode import encode_texts

SAMPLE = 200  # documents
LEAST = 0.999  # cosine of each of them
SCALE = 0.01  # how far its length may be off, as a part of what it should be
PROBES = 8  # documents that another way is tried with
LENGTHS = (32, 64, 128, 256, 384, 512, 1024, 2048, 4096, 8192)  # tokens at which tools cut
POOLINGS = {"mean": "the mean", "cls": "the first token", "lasttoken": "the last token", "max": "the maximum"}

# Words that people put before documents of models that want some, and of others by mistake
WORDS = ("passage: ", "query: ", "search_document: ", "document: ", "title: none | text: ", "Document: ")


class Held(Protocol):
    """Vectors that can be read and searched at positions, as an `Index` can."""

    def __len__(self) -> int: ...

    def vectors_at(self, positions: np.ndarray) -> np.ndarray: ...

    def nearest(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]: ...

    def as_kept(self, vectors: np.ndarray) -> np.ndarray:
        """What would be read back of vectors (n, dimension) that were put in: themselves, but for codes."""
        ...


@dataclass(frozen=True)
class Likeness:
    """A check that was passed: of how many documents, and the lowest cosine among them."""

    documents: int
    cosine: float

    def to_json(self) -> dict[str, Any]:
        return {"documents": self.documents, "lowest_cosine": round(self.cosine, 6)}


@dataclass(frozen=True)
class Way:
    """How texts may have been encoded; None: as the model does it."""

    words: str | None = None
    pooling: str | None = None
    cut: int | None = None
    joined: str | None = None  # what stands between title and text; "" is the text alone

    def said(self, tower: TextTower) -> str:
        own, parts = tower.text_prompt("document"), []
        if self.pooling is not None:
            parts.append(f"with other pooling: {POOLINGS[self.pooling]}")
        if self.words == "":
            parts.append(f"without the words {own!r}, which this model puts before documents (--document-words '')")
        elif self.words is not None:
            before = f"not {own!r}" if own else "where this model puts none"
            parts.append(f"with the words {self.words!r} before them, {before} (--document-words {self.words!r})")
        if self.cut is not None:
            parts.append(f"cut at {self.cut:,} tokens, where this model cuts at {tower.text_length('document'):,}")
        if self.joined is not None:
            parts.append("without their titles" if self.joined == "" else f"with {self.joined!r} behind their titles")
        return ", and ".join(parts)


def check_made(
    tower: TextTower,
    documents: Corpus | Sequence[Document],
    held: Held,
    *,
    sample: int = SAMPLE,
    what: str = "these vectors",
) -> Likeness:
    """Compare vectors with what a model makes of their texts.

    Args:
        documents: in the order of the vectors.
        held: the vectors, ready to be compared by inner product.
        sample: how many documents are encoded, evenly spread.
        what: the vectors, for messages.

    Raises UserError, with the likely reason, unless every vector of the sample has a cosine of at least 0.999 to what
    the model makes, and its length to a hundredth.
    """
    if sample < 1:
        raise UserError(f"the sample must be of at least 1 document, got {sample}")
    if len(documents) != len(held):
        raise UserError(f"{what}: expected one vector for each document, got {len(held)} and {len(documents)}")
    at = np.unique(np.linspace(0, len(held) - 1, min(sample, len(held))).round().astype(np.int64))
    given = np.asarray(held.vectors_at(at), dtype=np.float32)
    some = [documents[int(position)] for position in at]
    made = tower.comparable(encode_texts(tower, [each.content for each in some], "document"))
    if given.shape[1] != made.shape[1]:
        raise UserError(f"{what} are not those of {tower.name}: {_dimensions(given, made)}")
    made = np.asarray(held.as_kept(made), dtype=np.float32)
    alike = cosines(given, made)
    fits = alike >= LEAST
    lengths = np.linalg.norm(given, axis=1) / np.maximum(np.linalg.norm(made, axis=1), 1e-12)
    if fits.all() and (np.abs(lengths - 1) < SCALE).all():
        return Likeness(len(at), float(alike.min()))
    if fits.all():
        raise UserError(
            f"{what} point where those of {tower.name} do, and are {np.median(lengths):.3g} times as long: they were "
            "not normalised, or scaled; divide them by that"
        )
    lowest = np.nan_to_num(alike, nan=-1.0).min()
    reason = (
        _unusable(given)
        or _moved(held, at, made, np.flatnonzero(~fits))
        or _otherwise(tower, [some[number] for number in np.flatnonzero(~fits)], held, given[~fits], fits.mean() < 0.5)
        or _some(some, fits)
    )
    raise UserError(
        f"{what} are not what {tower.name} makes of these texts: {int((~fits).sum())} of {len(at)} sampled documents "
        f"have a cosine below {LEAST} (lowest {lowest:.3f}); {reason}"
    )


def cosines(one: Floats, other: Floats) -> NDArray[np.float64]:
    """Of row and row (n,); 0 for a vector of length 0."""
    return (unit_length(one) * unit_length(other)).sum(axis=1, dtype=np.float64)


def _dimensions(given: Floats, made: Floats) -> str:
    said = f"they have {given.shape[1]} dimensions, and the model {made.shape[1]}"
    if given.shape[1] < made.shape[1] and (cosines(given, made[:, : given.shape[1]]) >= LEAST).all():
        return f"{said}: they were cut to their first {given.shape[1]}; load the model with the same truncate_dim"
    return f"{said}; they were made by another model"


def _unusable(given: Floats) -> str | None:
    odd = ~np.isfinite(given).all(axis=1) | (np.abs(given).max(axis=1) == 0)
    return f"{int(odd.sum())} of them are zero or not finite" if odd.any() else None


def _moved(held: Held, at: NDArray[np.int64], made: Floats, misfits: NDArray[np.int64]) -> str | None:
    """Whether the vectors that are missed stand at other positions."""
    asked = misfits[: 2 * PROBES]
    _, found = held.nearest(made[asked], 1)
    places = found[:, 0]
    there = places >= 0
    there[there] = cosines(np.asarray(held.vectors_at(places[there]), np.float32), made[asked[there]]) >= LEAST
    there &= places != at[asked]
    if there.sum() * 2 < len(asked):
        return None
    wanted, places = at[asked[there]], places[there]
    if (places == len(held) - 1 - wanted).all():
        how = "reversed"
    elif len(wanted) > 1 and len(shift := np.unique(places - wanted)) == 1:
        how = f"shifted by {int(shift[0]):+,}"
    else:
        how = f"the vector of document {wanted[0]:,} stands at {places[0]:,}, counted from 0"
    return f"they stand in another order than the ids or texts: {how}; give the ids in the order of the vectors"


def _otherwise(tower: TextTower, misfits: Sequence[Document], held: Held, given: Floats, most: bool) -> str | None:
    """Another way to encode that gives these vectors, in words. Where most documents fit it can only be a cut."""
    lengths = [len(row) for row in tower.tokenize([each.content for each in misfits], "document")]
    order = np.argsort(lengths, kind="stable")
    spread = order[np.unique(np.linspace(0, len(order) - 1, min(PROBES, len(order))).round().astype(int))]

    def fits(way: Way, probes: NDArray[np.int64]) -> bool:
        made = held.as_kept(tower.comparable(encoded(tower, [misfits[number] for number in probes], way)))
        return bool((cosines(given[probes], np.asarray(made, np.float32)) >= LEAST).all())

    cuts, others = list(_cuts(tower, misfits)), list(_ways(tower, misfits)) if most else []
    worded, pooled = ([way for way in others if getattr(way, name) is not None] for name in ("words", "pooling"))
    both = [replace(one, pooling=other.pooling) for one in worded for other in pooled]
    for way in cuts:
        if fits(way, spread):
            return f"they were made {way.said(tower)}"
    for way in (*others, *both):
        if fits(way, order[:PROBES]):  # short ones are quick, and a cut does not matter to them
            whole = next(
                (each for each in (way, *(replace(way, cut=cut.cut) for cut in cuts)) if fits(each, spread)), way
            )
            return f"they were made {whole.said(tower)}"
    return None


def _some(sampled: Sequence[Document], fits: NDArray[np.bool_]) -> str:
    others = [document.id for document, each in zip(sampled, fits, strict=True) if not each]
    if fits.mean() >= 0.5:
        return f"the others fit, so these texts may have been changed since: {few(others)}"
    return "no other pooling, words, length or order fits, so another model made them, or they are of other texts"


def _ways(tower: TextTower, documents: Sequence[Document]) -> Iterator[Way]:
    """Each with one thing but the cut done otherwise than this model does it."""
    own = getattr(_pooling(tower), "pooling_mode", None)
    yield from (Way(pooling=mode) for mode in POOLINGS if mode != own and own is not None)
    known = dict.fromkeys(["", *(tower.sentence_transformer.prompts or {}).values(), *WORDS])
    yield from (Way(words=words) for words in known if words is not None and words != tower.text_prompt("document"))
    if any(document.title and document.text for document in documents):
        yield from (Way(joined=joined) for joined in ("", "\n", "\n\n", ". ", ": "))


def _cuts(tower: TextTower, documents: Sequence[Document]) -> Iterator[Way]:
    """Those that matter to these documents."""
    words, limit = tower.text_prompt("document"), tower.text_length("document")
    longest = max(
        map(len, tower.tokenizer([words + document.content for document in documents], verbose=False)["input_ids"])
    )
    for length in LENGTHS:
        if length != limit and length <= (tower.positions or length):
            if length < longest:
                yield Way(cut=length)
            elif limit < longest:
                yield Way(cut=length)  # the first that cuts nothing stands for all beyond
                return


def _pooling(tower: TextTower) -> Any:
    return next((each for each in tower.sentence_transformer if hasattr(each, "pooling_mode")), None)


@torch.no_grad()
def encoded(tower: TextTower, documents: Sequence[Document], way: Way) -> Floats:
    """A few documents -> vectors (documents, dimension), encoded in one of the ways, in one pass."""
    texts = [_text(document, way.joined) for document in documents]
    words = tower.text_prompt("document") if way.words is None else way.words
    limit = min(way.cut or tower.text_length("document"), tower.positions or 10**9)
    rows = tower.tokenizer([words + text for text in texts], truncation=True, max_length=limit)["input_ids"]
    before = tower.tokenizer(words, add_special_tokens=False)["input_ids"] if words else []
    pooling = _pooling(tower)
    other = None
    if way.pooling is not None and pooling is not None:
        other = type(pooling)(pooling.embedding_dimension, way.pooling, include_prompt=pooling.include_prompt)
    tokens, mask = (each.to(tower.device) for each in padded([row or [0] for row in rows], _padding(tower)))
    features: dict[str, Any] = {"input_ids": tokens, "attention_mask": mask}
    if not tower.pools_prompt and words:
        features["prompt_length"] = tower.lead + len(before)
    features = tower.transformer(features)
    for module in list(tower.sentence_transformer)[1:]:
        features = (other if other is not None and module is pooling else module)(features)
    made: Floats = features["sentence_embedding"][:, : tower.dimension].float().cpu().numpy()
    return made


def _padding(tower: TextTower) -> int:
    return int(tower.tokenizer.pad_token_id or 0)


def _text(document: Document, joined: str | None) -> str:
    if joined is None or not (document.title and document.text):
        return document.content
    return document.text if joined == "" else f"{document.title}{joined}{document.text}"

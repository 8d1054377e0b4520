"""The rows of a batch -> hits and probabilities: pictures decoded and encoded together, words by prompt."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor

from multimodal.classifier import Floats
from multimodal.data.pictures import TooManyPixels, decode
from multimodal.evaluation.feedback import ask
from multimodal.prompts.contexts import Classes, Prompts, logits
from multimodal.prompts.settings import PromptSettings
from multimodal.serving.served import Loaded, PictureShelf
from multimodal.vectors.image_data import GivenFeatures
from multimodal.vectors.texts import Texts
from retrieval_prompts.errors import UserError
from retrieval_prompts.serving.fields import Refused

KEPT = 16_384  # classes whose vectors are kept


@dataclass(frozen=True)
class Query:
    """One question of a request: words or a picture to search with, or a picture to classify.

    Args:
        prompt: None for the frozen model; strength: None for the prompt's own.
        picture: the bytes of a file, which messages call `place`.
        k: hits; 0 to classify.
        classes: to tell apart.
        beside: whether the frozen model's answer is wanted too.
    """

    prompt: Loaded | None
    strength: float | None = None
    words: str = ""
    picture: bytes | None = None
    place: str = "image"
    k: int = 0
    classes: tuple[str, ...] = ()
    beside: bool = False

    @property
    def share(self) -> float:
        """How much of the prompt counts."""
        if self.prompt is None:
            return 0.0
        return self.prompt.strength if self.strength is None else self.strength


@dataclass(frozen=True)
class Hit:
    """The picture at a position of the index. `score` is a cosine."""

    position: int
    score: float
    id: str
    title: str
    text: str


@dataclass(frozen=True)
class Answer:
    """Hits, and those of the frozen model; or probabilities (C,), and the frozen model's."""

    hits: list[Hit] = field(default_factory=list)
    frozen: list[Hit] | None = None
    probabilities: Floats | None = None
    frozen_probabilities: Floats | None = None


class Answering:
    """Answers the rows of a batch: what comes of one, or why nothing does, does not depend on the others.

    Several threads may call it: they decode one picture at a time.

    Args:
        pixels: of a picture, at most.
    """

    def __init__(self, shelf: PictureShelf, pixels: int) -> None:
        self.shelf, self.pixels, self.kept, self._decoding = shelf, pixels, KeptClasses(shelf), Lock()

    @torch.no_grad()
    def __call__(self, rows: Sequence[Query]) -> list[Answer | Exception]:
        seen = {place: self._seen(row) for place, row in enumerate(rows) if row.picture is not None}
        answers: dict[int, Answer | Exception] = {
            place: found for place, found in seen.items() if isinstance(found, Exception)
        }
        pixels = {place: found for place, found in seen.items() if isinstance(found, Tensor)}
        features = self._features(pixels)
        left = [place for place in range(len(rows)) if place not in answers]
        answers |= self._searched(rows, [place for place in left if rows[place].k], features)
        answers |= self._classified(rows, [place for place in left if not rows[place].k], features, pixels)
        return [answers[place] for place in range(len(rows))]

    def _seen(self, row: Query) -> Tensor | Exception:
        """(3, H, W), what the image tower sees of a picture; or why it sees nothing."""
        assert row.picture is not None
        try:
            with self._decoding:
                return self.shelf.clip.preprocess(decode(row.picture, row.place, self.pixels))
        except TooManyPixels as error:
            return Refused(413, str(error))
        except UserError as error:
            return error

    def _features(self, pixels: Mapping[int, Tensor]) -> dict[int, Tensor]:
        if not pixels:
            return {}
        encoded = self.shelf.clip.encode_images(torch.stack(list(pixels.values()))).cpu()
        return dict(zip(pixels, encoded, strict=True))

    def _searched(
        self, rows: Sequence[Query], places: Sequence[int], features: Mapping[int, Tensor]
    ) -> dict[int, Answer]:
        """Those of one depth are searched at once: another may find others in an approximate index."""
        vectors = {(place, False): features[place] for place in places if place in features}
        vectors |= self._encoded(rows, [place for place in places if place not in features])
        found: dict[tuple[int, bool], list[Hit]] = {}
        for k in {rows[place].k for place in places}:
            asked = [key for key in vectors if rows[key[0]].k == k]
            scores, positions = self.shelf.index.nearest(torch.stack([vectors[key] for key in asked]).numpy(), k)
            for key, row, own in zip(asked, positions.tolist(), scores.tolist(), strict=True):
                found[key] = [self._hit(at, score) for at, score in zip(row, own, strict=True) if at >= 0]
        return {place: Answer(found[place, False], found.get((place, True))) for place in places}

    def _encoded(self, rows: Sequence[Query], places: Sequence[int]) -> dict[tuple[int, bool], Tensor]:
        """(place, whether it is the frozen model's) -> the vector of its words."""
        groups: dict[tuple[Loaded | None, float], list[tuple[int, bool]]] = {}
        for place in places:
            row = rows[place]
            groups.setdefault((row.prompt if row.share else None, row.share), []).append((place, False))
            if row.beside:
                groups.setdefault((None, 0.0), []).append((place, True))
        words = list(dict.fromkeys(rows[place].words for place in places))
        texts = Texts(self.shelf.clip, words)
        vectors: dict[tuple[int, bool], Tensor] = {}
        if any(share < 1 for _, share in groups):
            _ = texts.frozen  # which all groups then have
        for (prompt, share), keys in groups.items():
            prompter = None if prompt is None else prompt.classifier.method.prompter
            own = texts.take([words.index(rows[place].words) for place, _ in keys])
            vectors |= dict(zip(keys, ask(own, prompter, share, self.shelf.index), strict=True))
        return vectors

    def _hit(self, position: int, score: float) -> Hit:
        document = self.shelf.index.document(self.shelf.index.ids[position])
        return Hit(position, score, document.id, document.title, document.text)

    def _classified(
        self,
        rows: Sequence[Query],
        places: Sequence[int],
        features: Mapping[int, Tensor],
        pixels: Mapping[int, Tensor],
    ) -> dict[int, Answer | Exception]:
        groups: dict[tuple[Loaded | None, float, tuple[str, ...]], list[int]] = {}
        for place in places:
            groups.setdefault((rows[place].prompt, rows[place].share, rows[place].classes), []).append(place)
        answers: dict[int, Answer | Exception] = {}
        for (prompt, share, classes), own in groups.items():
            vectors = torch.stack([features[place] for place in own]).to(self.shelf.clip.device)
            given = GivenFeatures(vectors, torch.stack([pixels[place] for place in own]))
            try:
                known = self.kept.of(prompt, classes)
                found = _probabilities(given, known, prompt, share)
                beside = any(rows[place].beside for place in own)
                frozen = _probabilities(given, known, prompt, 0.0) if beside else found
            except UserError as error:
                answers |= dict.fromkeys(own, error)
                continue
            for number, place in enumerate(own):
                other = frozen[number] if rows[place].beside else None
                answers[place] = Answer(probabilities=found[number], frozen_probabilities=other)
        return answers


class KeptClasses:
    """Lists of classes as a prompt reads them, those that were asked for last: at most KEPT classes in all."""

    def __init__(self, shelf: PictureShelf) -> None:
        self._shelf, self._lock = shelf, Lock()
        self._lists: OrderedDict[tuple[Loaded | None, tuple[str, ...]], _Read] = OrderedDict()

    def of(self, prompt: Loaded | None, names: tuple[str, ...]) -> Classes:
        """Raises UserError for names that are none, or do not fit."""
        with self._lock:
            return self._of((prompt, names))

    def _of(self, key: tuple[Loaded | None, tuple[str, ...]]) -> Classes:
        prompt, names = key
        if key not in self._lists:
            settings = PromptSettings() if prompt is None else prompt.classifier.settings
            self._lists[key] = _Read(self._shelf.clip, names, settings)
        self._lists.move_to_end(key)
        there = set(self._shelf.all())
        for each in [each for each in self._lists if each[0] not in there and each[0] is not None and each != key]:
            del self._lists[each]  # of prompts that were unloaded
        while len(self._lists) > 1 and _count(self._lists) > KEPT:
            self._lists.popitem(last=False)
        return self._lists[key]


class _Read(Classes):
    """Classes under prompts that do not change: what they make of the text tower's input is computed once."""

    _tuned: Tensor | None = None

    def features(self, prompts: Prompts) -> Tensor:
        if prompts.per_image:
            return super().features(prompts)
        if self._tuned is None:
            self._tuned = super().features(prompts)
        return self._tuned


def _count(lists: Iterable[tuple[Any, tuple[str, ...]]]) -> int:
    return sum(len(names) for _, names in lists)


def _probabilities(given: GivenFeatures, known: Classes, prompt: Loaded | None, share: float) -> Floats:
    """(n, C), as `PromptClassifier.predict_proba` gives them. Raises UserError."""
    if prompt is None:
        found = logits(known.clip.scale, given.vectors, known.frozen).softmax(dim=1).cpu().numpy()
    else:
        found = prompt.classifier.read_as(known, share).predict_proba(given, known.names)
    if not np.isfinite(found).all():
        raise UserError("these prompts give probabilities that are not finite; lower their strength, or train again")
    return found

"""Pictures found by words or by a picture, and captions and pictures compared both ways. Knows no training.

Pictures are never prompted here: their features are computed once, and one index serves the frozen model and every
prompt of the text side.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from multimodal.data.pictures import Picture
from multimodal.evaluation.metrics import RECALL_AT, best_ranks
from multimodal.evaluation.rankings import TOP, Best, Entry, Rankings, portable
from multimodal.vectors.features import image_features
from multimodal.vectors.texts import Texts, context_length, encode_texts, warn_of_cut
from retrieval_prompts.data.beir_folder import Document
from retrieval_prompts.errors import UserError
from retrieval_prompts.evaluation.significance import compare
from retrieval_prompts.vectors.index import Index

if TYPE_CHECKING:
    from multimodal.classifier import PromptClassifier
    from multimodal.data.captions import Captioned
    from multimodal.towers.clip import Clip

PICTURES = 8192  # vectors read from the cache at once
SCORES = 4_000_000  # compared at once: bounds the memory of an evaluation
TESTED = 10  # the k of the paired tests' recall
WAYS = ("i2t", "t2i")


@torch.no_grad()
def picture_vector(clip: Clip, picture: Picture) -> Tensor:
    """A picture -> (1, D) of unit length, on the CPU. Raises UserError if it cannot be read."""
    return clip.encode_images(clip.preprocess(picture.load())[None]).cpu()


def encoder(clip: Clip) -> dict[str, Any]:
    """What an index says of the model that made it. Both towers count: texts are compared with its pictures."""
    return {"fingerprint": clip.fingerprint, "model": clip.name, "pretrained": clip.pretrained}


def build_index(
    clip: Clip,
    pictures: Sequence[Picture],
    *,
    root: Path | str,
    texts: Mapping[str, str] | None = None,
    factory: str = "Flat",
    cache: Path | None = None,
) -> Index:
    """Encode pictures, as far as they are not in the cache, and index them by name. Unreadable ones are left out.

    Args:
        root: the folder that names are relative to, kept in the index to show its pictures.
        texts: name -> a label or captions, shown with a hit.
        factory: see `Index.build`.
        cache: see `image_features`.
    """
    features = image_features(clip, pictures, cache=cache)
    kept = [pictures[position] for position in features.kept]
    documents = [Document(each.name, Path(each.name).name, (texts or {}).get(each.name, "")) for each in kept]
    ids = [each.name for each in kept]
    described = {**encoder(clip), "images": str(Path(root).absolute())}
    return Index.build(_blocks(features), documents, ids, encoder=described, factory=factory)


@dataclass(frozen=True)
class Hit:
    """A picture that was found. `score` is a cosine; `text` a label or captions, or empty."""

    id: str
    score: float
    title: str
    text: str
    picture: Picture


def search(index: Index, vector: Tensor, k: int = 10, **parameters: int | None) -> list[Hit]:
    """The k pictures nearest to a vector (1, D). `parameters`: see `Index.search`.

    The vector must come from the model of the index: `index.check_encoder(encoder(clip))` before.
    """
    scores, (ids,) = index.search(vector.numpy(), k, **parameters)
    root = Path(index.manifest["encoder"].get("images", ""))
    found = [(index.document(id), score) for id, score in zip(ids, scores[0].tolist(), strict=False)]
    return [
        Hit(document.id, score, document.title, document.text, Picture(document.id, root / document.id))
        for document, score in found
    ]


class Pairs:
    """Pictures (I, D) and their captions, ready to be compared.

    A caption that stands word for word with several pictures is right for each of them, so that it is never a false
    negative; every caption is still a query and a candidate of its own, as in the published protocol.

    Args:
        encoded: pictures that were encoded now, not found in the cache.
        pictures: the same pictures; what needs no names and shows none does without.
    """

    def __init__(
        self,
        images: Tensor,
        captions: Sequence[Sequence[str]],
        encoded: int = 0,
        pictures: Sequence[Picture] = (),
    ) -> None:
        self.images = images
        self.encoded = encoded
        self.pictures = pictures
        self.captions = [caption for own in captions for caption in own]  # (T,)
        self.owner = np.repeat(np.arange(len(captions)), [len(own) for own in captions])  # (T,) positions in I
        alike: dict[str, list[int]] = {}
        for at, caption in enumerate(self.captions):
            alike.setdefault(" ".join(caption.casefold().split()), []).append(at)
        same: list[list[int]] = [[]] * len(self.captions)
        for group in alike.values():
            for at in group:
                same[at] = group
        self.pictures_of = [sorted({int(self.owner[at]) for at in group}) for group in same]  # caption -> pictures
        self.captions_of: list[list[int]] = [[] for _ in captions]  # picture -> captions
        for at, owner in enumerate(self.owner):
            self.captions_of[owner] += same[at]

    @classmethod
    def of(cls, clip: Clip, data: Captioned, cache: Path | None = None) -> Pairs:
        """Of the pictures that can be read. Raises UserError when fewer than two are left."""
        features = image_features(clip, data.pictures, cache=cache)
        kept = list(features.kept)
        if len(kept) < 2:
            raise UserError(f"expected two or more pictures with captions to compare, got {len(kept)}")
        images = torch.from_numpy(np.concatenate(list(_blocks(features))))
        captions = [data.captions[position] for position in kept]
        return cls(images, captions, features.encoded, [data.pictures[position] for position in kept])

    @property
    def asked(self) -> list[int]:
        """The pictures that have captions."""
        return [at for at, own in enumerate(self.captions_of) if own]

    def ranks(self, texts: Tensor, keep: int = 0) -> Ranks:
        """Of caption vectors (T, D), by exact comparison with all pictures. `keep`: also the best so many answers."""
        asked = self.asked
        i2t, captions = _ranks(self.images[asked], texts, [self.captions_of[at] for at in asked], keep)
        t2i, pictures = _ranks(texts, self.images, self.pictures_of, keep)
        best = {way: found for way, found in zip(WAYS, (captions, pictures), strict=True) if found is not None}
        return Ranks(i2t, t2i, self.owner, best)

    def rankings(self, found: Mapping[str, Ranks]) -> list[Rankings]:
        """What systems ranked, in each direction; `found`: system -> its ranks, with the best answers kept.

        A caption's id is that of its picture, "#", and its number there from 0, as Flickr8k has it.
        """
        names = [portable(picture.name) for picture in self.pictures]
        numbers = np.arange(len(self.owner)) - np.searchsorted(self.owner, self.owner)
        pictures = [Entry(name, each.name, each) for name, each in zip(names, self.pictures, strict=True)]
        captions = [
            Entry(f"{names[owner]}#{number}", text)
            for owner, number, text in zip(self.owner, numbers, self.captions, strict=True)
        ]
        right = [sorted(set(self.captions_of[at])) for at in self.asked]
        both = (
            Rankings("i2t", [pictures[at] for at in self.asked], captions, right),
            Rankings("t2i", captions, pictures, self.pictures_of),
        )
        for each in both:
            each.systems |= {system: ranks.best[each.name] for system, ranks in found.items()}
        return list(both)


@dataclass(frozen=True)
class Ranks:
    """The rank, from 1, of the best-placed right answer to each query.

    Args:
        i2t: (pictures with captions,), a picture asks for captions.
        t2i: (captions,), a caption asks for pictures.
        owner: (captions,), the picture of each caption.
        best: {"i2t", "t2i"} -> the best answers to each query, where they were kept.
    """

    i2t: np.ndarray
    t2i: np.ndarray
    owner: np.ndarray
    best: Mapping[str, Best] = field(default_factory=dict)

    def recalls(self) -> dict[str, dict[str, float]]:
        """{"i2t", "t2i"} -> "r@k" -> the share of queries with a right answer in the top k (Karpathy and Fei-Fei 2015).

        Not the recall of information retrieval, which counts all right answers.
        """
        both = zip(WAYS, (self.i2t, self.t2i), strict=True)
        return {way: {f"r@{k}": float((ranks <= k).mean()) for k in RECALL_AT} for way, ranks in both}

    def mean_reciprocal_rank(self) -> float:
        """The mean of both directions, in (0, 1]."""
        return float(((1 / self.i2t).mean() + (1 / self.t2i).mean()) / 2)

    def per_picture(self, k: int = TESTED) -> dict[str, dict[str, float]]:
        """{"i2t", "t2i"} -> picture -> its r@k, for its captions their mean."""
        counts, hits = np.bincount(self.owner), np.bincount(self.owner, self.t2i <= k)
        asked = np.flatnonzero(counts)
        return {
            "i2t": {str(at): float(rank <= k) for at, rank in zip(asked, self.i2t, strict=True)},
            "t2i": {str(at): float(hits[at] / counts[at]) for at in asked},
        }


def paired_tests(zero_shot: Ranks, tuned: Sequence[Ranks]) -> dict[str, dict[str, Any]]:
    """{"tuned_vs_zero-shot"} -> {"i2t", "t2i"} -> the comparison of r@10 by pictures (`evaluate.compare`).

    tuned: of several seeds, whose mean is compared. Captions of a picture are no independent queries.
    """
    before, after = zero_shot.per_picture(), [ranks.per_picture() for ranks in tuned]
    comparisons = {}
    for way in WAYS:
        means = {key: float(np.mean([each[way][key] for each in after])) for key in before[way]}
        comparisons[way] = compare(before[way], means, f"r@{TESTED}").as_dict()
    return {"tuned_vs_zero-shot": comparisons}


def search_prompts(classifier: PromptClassifier) -> tuple[nn.Module, float]:
    """(prompter, strength) of loaded prompts. Raises UserError for prompts that cannot be put before a text."""
    if classifier.settings.position != "end":
        raise UserError(
            f"these prompts were tuned with the class name at the {classifier.settings.position} of them, and a search "
            'puts them before the text; use prompts of the position "end"'
        )
    return classifier.method.prompter, classifier.strength


def evaluate_captions(
    clip: Clip,
    data: Captioned,
    prompter: nn.Module | None = None,
    *,
    strength: float = 1.0,
    cache: Path | None = None,
    rankings: list[Rankings] | None = None,
) -> dict[str, Any]:
    """Both directions of caption retrieval, zero-shot and, with a prompter, tuned.

    rankings: a list that gets what the systems ranked.

    Returns "systems" -> "zero-shot", "tuned" -> "i2t", "t2i" -> "r@1", "r@5", "r@10" as fractions; "tests", the paired
    comparison of r@10 by pictures; and "images", "captions", "images_encoded", "seconds".
    """
    started = time.perf_counter()
    pairs = Pairs.of(clip, data, cache)
    seconds = {"images": time.perf_counter() - started}
    texts = Texts(clip, pairs.captions)
    length = context_length(prompter, texts)
    warn_of_cut(texts, length)
    found: dict[str, Ranks] = {}
    for system in ["zero-shot"] if prompter is None else ["zero-shot", "tuned"]:
        started = time.perf_counter()
        used = prompter if system == "tuned" else None
        found[system] = pairs.ranks(encode_texts(texts, used, strength), TOP if rankings is not None else 0)
        seconds[system] = time.perf_counter() - started
    if rankings is not None:
        rankings += pairs.rankings(found)
    return {
        "systems": {system: ranks.recalls() for system, ranks in found.items()},
        "tests": paired_tests(found["zero-shot"], [found["tuned"]]) if "tuned" in found else {},
        "images": len(pairs.images),
        "captions": len(pairs.captions),
        "captions_cut": len(texts.cut(length)),
        "images_encoded": pairs.encoded,
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
    }


def _blocks(features: Any) -> Iterator[np.ndarray]:
    """The pictures' own views, (n, D) in float32, block by block."""
    count = len(features.kept)
    for start in range(0, count, PICTURES):
        yield features.take(np.arange(start, min(start + PICTURES, count)), 0).numpy()


def _ranks(
    queries: Tensor, candidates: Tensor, positives: Sequence[Sequence[int]], keep: int
) -> tuple[np.ndarray, Best | None]:
    """(Q, D) against (N, D) -> ranks (Q,) and the `keep` best of each, with at most SCORES scores in memory."""
    step = max(1, SCORES // len(candidates))
    ranks, best = [], []
    for start in range(0, len(queries), step):
        scores = (queries[start : start + step] @ candidates.T).numpy()
        ranks.append(best_ranks(scores, positives[start : start + step]))
        if keep:
            best.append(Best.of(scores, keep))
    return np.concatenate(ranks), Best.joined(best) if keep else None

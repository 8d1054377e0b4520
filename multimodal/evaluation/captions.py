"""Captions and pictures compared both ways: ranks, recall and paired tests. Knows no prompts and no training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from multimodal.data.captions import WAYS
from multimodal.data.pictures import Picture
from multimodal.evaluation.metrics import RECALL_AT, best_ranks
from multimodal.evaluation.rankings import Best, Entry, Rankings
from multimodal.vectors.features import image_features
from retrieval_prompts.data.ids import portable
from retrieval_prompts.errors import UserError
from retrieval_prompts.evaluation.significance import Comparison, compare

if TYPE_CHECKING:
    from multimodal.data.captions import Captioned
    from multimodal.towers.clip import Clip

SCORES = 4_000_000  # compared at once: bounds the memory of an evaluation
TESTED = 10  # the k of the paired tests' recall


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
        """Of the pictures that can be read.

        Raises:
            UserError: when fewer than two are left.
        """
        features = image_features(clip, data.pictures, cache=cache)
        kept = list(features.kept)
        if len(kept) < 2:
            raise UserError(f"expected two or more pictures with captions to compare, got {len(kept)}")
        images = features.take(np.arange(len(kept)))
        captions = [data.captions[position] for position in kept]
        return cls(images, captions, features.encoded, [data.pictures[position] for position in kept])

    @property
    def asked(self) -> list[int]:
        """The pictures that have captions."""
        return [at for at, own in enumerate(self.captions_of) if own]

    def ranks(self, texts: Tensor, keep: int = 0, queries: Mapping[str, Tensor] | None = None) -> Ranks:
        """Of caption vectors (T, D), by exact comparison with all pictures.

        Args:
            keep: also the best so many answers.
            queries: {"i2t", "t2i"} -> (I, D) and (T, D), which ask in the place of pictures and captions.
        """
        asked, asking = self.asked, queries or {"i2t": self.images, "t2i": texts}
        i2t, captions = _ranks(asking["i2t"][asked], texts, [self.captions_of[at] for at in asked], keep)
        t2i, pictures = _ranks(asking["t2i"], self.images, self.pictures_of, keep)
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


def paired_tests(zero_shot: Ranks, tuned: Sequence[Ranks]) -> dict[str, Comparison]:
    """{"i2t", "t2i"} -> the comparison of r@10 by pictures, for captions of a picture are not independent queries.

    tuned: of several seeds, whose mean is compared with zero-shot.
    """
    before, after = zero_shot.per_picture(), [ranks.per_picture() for ranks in tuned]
    return {
        way: compare(
            before[way],
            {key: float(np.mean([each[way][key] for each in after])) for key in before[way]},
            f"r@{TESTED}",
        )
        for way in WAYS
    }


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

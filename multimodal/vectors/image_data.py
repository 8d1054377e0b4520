"""Images as training and prediction read them: cached features and pixels, or features that the caller has."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from multimodal.data.pictures import Picture
from multimodal.towers.clip import Clip
from multimodal.vectors.features import image_features, pixels
from retrieval_prompts.errors import UserError

Positions = NDArray[np.int64]


class CachedImages:
    """Pictures as training reads them: cached features, and pixels for methods that ask for them."""

    def __init__(self, clip: Clip, pictures: Sequence[Picture], views: int, cache: Path | None) -> None:
        self.clip = clip
        self.features_ = image_features(clip, pictures, views=views, cache=cache)
        self.kept = np.asarray(self.features_.kept)
        self.pictures = [pictures[position] for position in self.kept]

    def features(self, positions: Positions, views: Positions) -> Tensor:
        return self.features_.take(positions, views).to(self.clip.device)

    def fingerprint(self) -> str:
        """SHA-256 of the images as the frozen tower sees them."""
        everything = np.arange(len(self.kept))
        return hashlib.sha256(self.features(everything, np.zeros_like(everything)).cpu().numpy().tobytes()).hexdigest()

    def pixels(self, positions: Positions, views: Positions) -> Tensor:
        chosen = zip(positions.tolist(), views.tolist(), strict=True)
        return torch.stack([pixels(self.clip, self.pictures[at], view) for at, view in chosen]).to(self.clip.device)


class GivenFeatures:
    """Frozen features that the caller has.

    Args:
        vectors: (n, D).
        pixels: (n, 3, H, W) of the same images, as `Clip.preprocess` makes them, for prompts that enter the image
            tower.
    """

    def __init__(self, vectors: Tensor, pixels: Tensor | None = None) -> None:
        self.vectors, self.seen = F.normalize(vectors, dim=-1), pixels

    def __len__(self) -> int:
        return len(self.vectors)

    def features(self, positions: Positions, views: Positions) -> Tensor:
        return self.vectors[torch.as_tensor(positions)]

    def pixels(self, positions: Positions, views: Positions) -> Tensor:
        if self.seen is None:
            raise UserError("these prompts enter the image tower: give images, or their pixels, not features alone")
        return self.seen[torch.as_tensor(positions)].to(self.vectors.device)

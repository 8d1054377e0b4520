"""Baselines that change the model: a copy learns from shots, on other crops in each epoch, and answers for pictures.

No cached feature serves: training pictures are encoded in every step, those to classify once more. An index of the
frozen model is of no use to the copy. Knows no method.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from multimodal.data.templates import fill
from multimodal.prompts.methods.parts import seeded
from multimodal.towers.clip import Clip
from multimodal.vectors.features import VIEWS, pixels
from retrieval_prompts.training import loop
from retrieval_prompts.training.task import parts

if TYPE_CHECKING:
    from multimodal.data.pictures import Picture

# Of CLIP-LoRA's authors, whom those of 2SFS follow
LEARNING_RATE, FLOOR, WEIGHT_DECAY, BATCH = 2e-4, 1e-6, 1e-2, 32
Batch = tuple[int, NDArray[np.int64]]  # view and positions of its pictures


@dataclass(frozen=True)
class Crops:
    """Training pictures and their labels (n,)."""

    clip: Clip
    pictures: Sequence[Picture]
    labels: NDArray[np.int64]

    def batches(self, count: int, seed: int) -> list[Batch]:
        random, found = np.random.default_rng([seed]), list[Batch]()
        for epoch in range(count):
            found += [(1 + epoch % (VIEWS - 1), part) for part in parts(random.permutation(len(self.labels)), BATCH)]
            if len(found) >= count:
                break
        return found[:count]

    def of(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(b, 3, H, W) and labels (b,)."""
        view, chosen = batch
        seen = torch.stack([pixels(self.clip, self.pictures[at], view) for at in chosen.tolist()])
        return seen, torch.as_tensor(self.labels[chosen], device=self.clip.device)


def descend(
    learned: Iterable[nn.Parameter], batches: Sequence[Batch], loss: Callable[[Batch], Tensor], name: str, seed: int
) -> None:
    """A step a batch. `seed`: of what is random in the loss."""
    settings = loop.LoopSettings(
        1, LEARNING_RATE, warmup=0.0, weight_decay=WEIGHT_DECAY, clip=None, floor=FLOOR, advice=f"leave out {name}"
    )
    with seeded(seed):
        training = loop.fit(nn.ParameterList(learned), lambda _: batches, loss, None, settings)
        for _ in tqdm(training, desc=name, total=len(batches), unit="step", delay=1, leave=False):
            pass


@torch.no_grad()
def said(adapted: Clip, pictures: Sequence[Picture], text: Tensor, name: str) -> NDArray[np.float32]:
    """(n, C) logits of pictures, encoded now, and class vectors (C, D) of unit length."""
    found = [np.zeros((0, len(text)), dtype=np.float32)]
    for start in tqdm(range(0, len(pictures), BATCH), desc=f"{name}, encode", delay=1, leave=False):
        seen = adapted.encode_images(torch.stack([pixels(adapted, one) for one in pictures[start : start + BATCH]]))
        found.append((adapted.scale * seen @ text.T).cpu().numpy())
    return np.concatenate(found)


def in_template(template: str, names: Sequence[str]) -> list[str]:
    return [fill(template, name) for name in names]

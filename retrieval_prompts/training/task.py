"""What every training task shares: the device, the precision of its products, and the order of its batches.

Knows no text, picture, label or loss.
"""

from __future__ import annotations

import time
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

Positions = NDArray[np.int64]
TRIES = 10


class Task:
    """The base of the tasks on queries and documents, on labelled pictures, and on captions.

    Args:
        device: that of the frozen model.
        precision: of the matrix products of a training step: "float32", "bfloat16", or "auto" (see `in_bfloat16`).
        seed: of the order of the batches.
    """

    def __init__(self, device: torch.device, precision: str, seed: int) -> None:
        self.device, self.seed = device, seed
        self.bfloat16 = in_bfloat16(precision, device)

    def autocast(self) -> torch.autocast:
        """The context in which a step multiplies matrices."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16)

    def generator(self, epoch: int) -> np.random.Generator:
        """What is drawn for an epoch depends on the seed and the epoch alone."""
        return np.random.default_rng([self.seed, epoch])


def parts(order: Positions, size: int) -> list[Positions]:
    """Consecutive parts of so many; the last one may be smaller."""
    return [order[start : start + size] for start in range(0, len(order), size)]


def in_bfloat16(precision: str, device: torch.device) -> bool:
    """Whether products are made in bfloat16: where asked for, or with "auto" where the hardware is fast at it."""
    return precision == "bfloat16" or (precision == "auto" and fast_bfloat16(device))


@cache
def fast_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies matrices in bfloat16 so much faster than in float32 that a step gains much by it.

    A CPU with matrix hardware (AMX) is measured, once a process. One without is not: where products are twice as fast
    a step gains half of that, and a busy machine does not measure the same twice.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    amx = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return device.type == "cpu" and amx is not None and bool(amx()) and times_as_fast() > 1


def times_as_fast() -> float:
    """How many times as fast products in bfloat16 are as those in float32, of matrices as in a small model's step."""
    kinds = (torch.bfloat16, torch.float32)
    matrices = {dtype: (torch.ones(256, 384, dtype=dtype), torch.ones(384, 1536, dtype=dtype)) for dtype in kinds}
    seconds = dict.fromkeys(kinds, float("inf"))
    for _ in range(TRIES):  # in turns; the least is what no other work has disturbed
        for dtype, (rows, weights) in matrices.items():
            start = time.perf_counter()
            rows @ weights
            seconds[dtype] = min(seconds[dtype], time.perf_counter() - start)
    return seconds[torch.float32] / seconds[torch.bfloat16]

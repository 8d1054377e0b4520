"""How much of a prompt counts: 0 is exactly the frozen model, 1 exactly the prompted one, a line between them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from retrieval_prompts.errors import UserError
from retrieval_prompts.towers.text import Floats, Vectors, unit_length


def checked(strength: float) -> float:
    """Raises UserError for what is no strength."""
    if not 0 <= strength <= 1:
        raise UserError(f"strength must be from 0 (the frozen model) to 1 (the whole prompt), got {strength}")
    return float(strength)


def between(frozen: Vectors, prompted: Vectors, strength: float, *, unit: bool = True, lerp: bool = False) -> Vectors:
    """The point at `strength` on the straight line from frozen vectors (n, dimension) to prompted ones.

    Args:
        unit: vectors are of unit length, and so is the point.
        lerp: of tensors, in torch.lerp's order of operations: other last bits, which texts behind a CLIP's context
            have always had.
    """
    if lerp and isinstance(frozen, Tensor) and isinstance(prompted, Tensor):
        point = torch.lerp(frozen, prompted, strength)
    else:
        point = (1 - strength) * frozen + strength * prompted
    return unit_length(point) if unit else point


def between_each(frozen: Floats, prompted: Floats, strengths: ArrayLike, *, unit: bool = True) -> Floats:
    """`between`, with a strength a vector: at 0 and at 1 bit for bit the frozen vector and the prompted one."""
    each = np.asarray(strengths, dtype=np.float64)[:, None]
    point = (1 - each).astype(np.float32) * frozen + each.astype(np.float32) * prompted
    point = unit_length(point) if unit else point
    found: Floats = np.where(each == 0, frozen, np.where(each == 1, prompted, point))
    return found

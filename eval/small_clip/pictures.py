"""Random views of cached RGBA pictures: background, colours, place, size and turn. Never decodes a file."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


class Dice:
    """Random numbers for B pictures at once."""

    def __init__(self, B: int, generator: torch.Generator) -> None:
        self.B, self.generator = B, generator

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """[B, *shape] between low and high."""
        return torch.rand(self.B, *shape, generator=self.generator) * (high - low) + low

    def chance(self, probability: float) -> Tensor:
        """bool [B]."""
        return torch.rand(self.B, generator=self.generator) < probability


def augment(rgba: Tensor, mono: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """uint8 [B, S, S, 4] and bool [B] (drawn in one colour) -> float RGB in 0..1, [B, 3, size, size]."""
    B = len(rgba)
    dice = Dice(B, generator)
    x = rgba.permute(0, 3, 1, 2).float() / 255
    x = torch.cat([x[:, :3] * x[:, 3:], x[:, 3:]], dim=1)  # colour times alpha, so that edges do not darken
    x = F.grid_sample(x, places(dice, size), align_corners=False)  # transparent outside
    colour, alpha = x[:, :3], x[:, 3:]
    background = torch.where(dice.chance(0.6)[:, None], torch.ones(B, 3), dice.uniform(0.0, 1.0, 3))
    colour = torch.where(mono[:, None, None, None], ink(background, dice) * alpha, jitter(colour, alpha, dice))
    return (colour + background[:, :, None, None] * (1 - alpha)).clamp(0, 1)


def places(dice: Dice, size: int) -> Tensor:
    """Sampling grids [B, size, size, 2]: zoom, stretch, turn, shift and mirror."""
    angle = torch.where(dice.chance(0.5), dice.uniform(-math.pi / 9, math.pi / 9), torch.zeros(dice.B))
    zoom, stretch = dice.uniform(0.7, 1.3), dice.uniform(0.87, 1.15)
    mirror = torch.where(dice.chance(0.5), 1.0, -1.0)
    cos, sin = angle.cos() * zoom, angle.sin() * zoom
    across = torch.stack([cos * stretch * mirror, -sin * stretch, dice.uniform(-0.2, 0.2)], dim=1)
    down = torch.stack([sin / stretch * mirror, cos / stretch, dice.uniform(-0.2, 0.2)], dim=1)
    return F.affine_grid(torch.stack([across, down], dim=1), [dice.B, 4, size, size], align_corners=False)


def ink(background: Tensor, dice: Dice) -> Tensor:
    """A colour for pictures of one colour, [B, 3, 1, 1], that stands out from the background [B, 3]."""
    light = background.mean(dim=1, keepdim=True) > 0.5
    plain = torch.where(light, 0.0, 1.0).expand(-1, 3)
    coloured = torch.where(
        light, dice.uniform(0.0, 0.6, 3) * background, 1 - dice.uniform(0.0, 0.6, 3) * (1 - background)
    )
    return torch.where(dice.chance(0.4)[:, None], plain, coloured)[:, :, None, None]


def jitter(colour: Tensor, alpha: Tensor, dice: Dice) -> Tensor:
    """Mix the channels of colour-times-alpha [B, 3, H, W] a little, sometimes to grey, and change the brightness."""
    mix = torch.eye(3) * dice.uniform(0.8, 1.1)[:, None, None] + dice.uniform(-0.12, 0.12, 3, 3)
    mix = torch.where(dice.chance(0.08)[:, None, None], torch.full((3, 3), 1 / 3), mix)
    mix = torch.where(dice.chance(0.25)[:, None, None], torch.eye(3), mix)
    return torch.einsum("boc,bchw->bohw", mix, colour) + dice.uniform(-0.08, 0.08, 1, 1, 1) * alpha

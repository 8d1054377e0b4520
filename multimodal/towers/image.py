"""Prompts in the image tower: rows beside the patches of a ViT. Knows no class, no text and no training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from retrieval_prompts.errors import UserError

if TYPE_CHECKING:
    from multimodal.towers.clip import Clip


def encode_images(clip: Clip, pixels: Tensor, visual: Mapping[int, Tensor]) -> Tensor:
    """Image features of prompted images (VPT, Jia et al. 2022, section 3.2).

    Args:
        pixels: (B, 3, H, W), preprocessed for the model.
        visual: layer (from 0) -> (V, visual width). Layer 0's rows follow the patches, normalised as those are;
            a deeper layer's rows take their place before that layer. What is left of them after the last layer
            does not reach the pooling.

    Returns (B, dimension), unit length; without prompts, what the model's own forward gives, bit for bit.

    Raises:
        UserError: when the image tower is no VisionTransformer of open_clip, and for rows that do not fit it.
    """
    return encode_with_rows(clip, pixels, visual)[0]


def encode_with_rows(
    clip: Clip, pixels: Tensor, visual: Mapping[int, Tensor], last: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """`encode_images`, and what is left of the rows after the last layer: (B, dimension), unit length, or None.

    Args:
        last: (visual width, dimension), a projection of the mean of the rows, each normalised as the class token is
            (MMRL, Guo and Gu 2025, as in their code); None: they are not looked at.

    Raises:
        UserError: like `encode_images`.
    """
    tower = _tower(clip)
    for layer, rows in visual.items():
        if not 0 <= layer < visual_layers(clip) or rows.ndim != 2 or rows.shape[1] != visual_width(clip):
            raise UserError(
                f"expected visual prompts (rows, {visual_width(clip)}) for layers 0 to {visual_layers(clip) - 1}, "
                f"got {tuple(rows.shape)} for layer {layer}"
            )
    first = tower.transformer.batch_first
    x = tower._embeds(pixels)  # (B, N, width): the class token, then the patches
    B, N, width = x.shape
    for layer, block in enumerate(tower.transformer.resblocks):
        if layer in visual:
            rows = visual[layer].to(x.dtype)
            rows = tower.ln_pre(rows) if layer == 0 else rows  # the papers append the first rows before this norm
            x = torch.cat([x[:, :N], rows.expand(B, -1, -1)], dim=1)  # (B, N + V, width)
        x = block(x) if first else block(x.transpose(0, 1)).transpose(0, 1)
    pooled, _ = tower._pool(x[:, :N])
    if tower.proj is not None:
        pooled = pooled @ tower.proj
    if pooled.ndim != 2:
        raise UserError(
            f"the image tower of {clip.name} pools to {pooled.shape[1]} vectors an image, and one was expected; "
            "choose another model, or a method that prompts only the text, such as coop"
        )
    found = None if last is None else F.normalize((tower.ln_post(x[:, N:]).mean(dim=1) @ last).float(), dim=-1)
    return F.normalize(pooled.float(), dim=-1), found


def last_projection(clip: Clip) -> Tensor:
    """(visual width, dimension): what the frozen tower projects its pooled class token by.

    Raises:
        UserError: like `encode_images`, and for a tower that pools by attention or projects nothing.
    """
    tower = _tower(clip)
    if tower.proj is None or tower.attn_pool is not None:
        raise UserError(
            f"the image tower of {clip.name} has no projection behind its class token, which mmrl starts from; choose "
            "such a model (ViT-B-32, say), or another method"
        )
    return tower.proj.detach().float()


def visual_width(clip: Clip) -> int:
    """The width of a visual prompt's rows.

    Raises:
        UserError: like `encode_images`.
    """
    return int(_tower(clip).transformer.width)


def visual_layers(clip: Clip) -> int:
    """How many layers can be prompted.

    Raises:
        UserError: like `encode_images`.
    """
    return len(_tower(clip).transformer.resblocks)


def _tower(clip: Clip) -> Any:
    from open_clip.transformer import VisionTransformer

    tower = clip.model.visual
    if isinstance(tower, VisionTransformer):
        return tower
    raise UserError(
        f"the image tower of {clip.name} is a {type(tower).__name__}, and visual prompts need a VisionTransformer of "
        "open_clip; choose such a model (ViT-B-32, say), or a method that prompts only the text, such as coop"
    )

"""An image tower with prompts in it, as what encodes the pictures of an index. Knows no class and no query."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from multimodal.prompts.contexts import still
from multimodal.prompts.feedback import Feedback
from multimodal.towers.image import encode_images
from multimodal.vectors.texts import Texts
from retrieval_prompts.errors import UserError
from retrieval_prompts.prompts.strength import between

if TYPE_CHECKING:
    from multimodal.towers.clip import Clip


class PromptedTower:
    """A `features.ImageEncoder`: the frozen model with vectors beside the patches, at a strength.

    Args:
        visual: layer -> vectors; see `towers.image.encode_images`.
        strength: s mixes (1 - s) of the frozen and s of the prompted feature; above 0.
    """

    def __init__(self, clip: Clip, visual: Mapping[int, Tensor], strength: float = 1.0) -> None:
        self.clip, self.visual, self.strength = clip, visual, strength
        self.dimension, self.device, self.preprocess = clip.dimension, clip.device, clip.preprocess
        digest = hashlib.sha256(f"{clip.image_fingerprint} {strength!r}".encode())
        for layer, rows in sorted(visual.items()):
            digest.update(f" {layer} {tuple(rows.shape)} ".encode() + rows.detach().cpu().float().numpy().tobytes())
        self.image_fingerprint = digest.hexdigest()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.clip, name)

    @torch.no_grad()
    def encode_images(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, D) of unit length."""
        seen = encode_images(self.clip, pixels.to(self.device), self.visual)
        return seen if self.strength == 1 else between(self.clip.encode_images(pixels), seen, self.strength)


def prompted(clip: Clip, prompter: nn.Module, strength: float) -> PromptedTower | None:
    """The image tower under these prompts; None where they do not enter it.

    Raises:
        UserError: for prompts whose pictures are compared with what another model says.
    """
    if isinstance(prompter, Feedback):  # which is of queries
        return None
    made = still(prompter, Texts(clip, ["a"]), torch.zeros(1, clip.dimension, device=clip.device))
    if not made.visual or strength == 0:
        return None
    if made.project or made.texts is not None:
        raise UserError("these prompts compare pictures with their teacher's texts, which no index holds; use classify")
    return PromptedTower(clip, made.visual, strength)

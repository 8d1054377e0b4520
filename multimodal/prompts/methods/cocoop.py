"""CoCoOp: a context that depends on the image (Zhou et al. 2022, Conditional Prompt Learning for Vision-Language
Models).

    context of image x = [v1 + π] … [vM + π],    π = W2 relu(W1 x + b1) + b2    loss = cross-entropy

Trained are v1 … vM and the meta-net π, D -> D / 16 -> width. W2 and b2 start at zero, so training starts at CoOp's
initial context; with the recipe "paper" they are drawn at random, as published.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from multimodal.prompts.contexts import Classes, Prompts
from multimodal.prompts.methods import Method
from multimodal.prompts.methods.parts import encoder, seeded, text_vectors
from multimodal.prompts.objectives import cross_entropy

if TYPE_CHECKING:
    from multimodal.prompts.settings import PromptSettings
    from multimodal.towers.clip import Clip


class Conditional(nn.Module):
    """A context for each image: the common one, moved by the image's own bias."""

    def __init__(self, context: nn.Module, meta: nn.Module) -> None:
        super().__init__()
        self.context = context  # () -> (1, M, width)
        self.meta = meta  # (B, D) -> (B, width)

    def forward(self, classes: Classes, images: Tensor | None = None) -> Prompts:
        assert images is not None, "prompts that depend on the image need its features"
        return Prompts(self.context() + self.meta(images)[:, None], per_image=True)  # (B, M, width)


def build(clip: Clip, settings: PromptSettings, classes: int | None = None) -> Method:
    with seeded(settings.seed):
        down = nn.Linear(clip.dimension, max(1, clip.dimension // 16))
        up = nn.Linear(down.out_features, clip.text.width)
    if settings.recipe != "paper":
        nn.init.zeros_(up.weight)
        nn.init.zeros_(up.bias)
    context = encoder(text_vectors(clip, settings, depth=1), settings)
    return Method(Conditional(context, nn.Sequential(down, nn.ReLU(), up)).to(clip.device), cross_entropy)

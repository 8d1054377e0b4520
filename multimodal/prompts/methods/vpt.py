"""VPT: prompts in the image tower alone (Jia et al. 2022, Visual Prompt Tuning; on CLIP as in Khattak et al. 2023).

    before layer l < depth: the image's patches are followed by [v1] … [vV] of layer l    loss = cross-entropy

Trained are the vectors of the first `depth` image layers; depth 1 is VPT-shallow. The text is that of the words `init`
before each class name, and stays as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from multimodal.prompts.contexts import Classes, Prompts
from multimodal.prompts.methods import Method
from multimodal.prompts.methods.parts import encoder, text_vectors, visual_vectors
from multimodal.prompts.objectives import cross_entropy
from retrieval_prompts.errors import UserError

if TYPE_CHECKING:
    from multimodal.prompts.settings import PromptSettings
    from multimodal.towers.clip import Clip


class Visual(nn.Module):
    """Vectors for the first image layers, beside a text that is not trained and not saved."""

    context: Tensor  # (M, width)

    def __init__(self, context: Tensor, visual: nn.Module) -> None:
        super().__init__()
        self.register_buffer("context", context, persistent=False)
        self.visual = visual  # () -> (depth, V, visual width)

    def forward(self, classes: Classes, images: Tensor | None = None) -> Prompts:
        return Prompts(self.context, visual=dict(enumerate(self.visual())))


def build(clip: Clip, settings: PromptSettings, classes: int | None = None) -> Method:
    if settings.init.startswith(("gaussian", "zeros:")):
        raise UserError('vpt leaves the text as it is, so that must be words; write --init "a photo of a"')
    (context,) = text_vectors(clip, settings, depth=1)
    visual = encoder(visual_vectors(clip, settings), settings)
    return Method(Visual(context, visual).to(clip.device), cross_entropy, prompts_images=True)

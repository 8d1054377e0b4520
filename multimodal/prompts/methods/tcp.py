"""TCP: a context, and in a deeper layer tokens made of the class's own text (Yao et al. 2024, TCP: Textual-based
Class-aware Prompt tuning for Visual-Language Model).

    tokens of class c = U act(D t),    t the frozen text of c    loss = cross-entropy + weight · (1 − cos), as KgCoOp

Trained are the context and D, U: dimension -> dimension / 4 -> M · width. The tokens take the context's place before
layer 8 of 12, or as deep in another tower. The activation is QuickGELU, as in the paper's code.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from multimodal.prompts.contexts import Classes, Prompts
from multimodal.prompts.methods import Method
from multimodal.prompts.methods.parts import encoder, seeded, text_vectors
from multimodal.prompts.objectives import knowledge_guided
from retrieval_prompts.errors import UserError

if TYPE_CHECKING:
    from multimodal.prompts.settings import PromptSettings
    from multimodal.towers.clip import Clip


class ClassAware(nn.Module):
    """A context of all classes before the first layer, and before layer `layer` each class's own tokens."""

    def __init__(self, context: nn.Module, down: nn.Linear, up: nn.Linear, layer: int) -> None:
        super().__init__()
        self.context = context  # () -> (1, M, width)
        self.down, self.up = down, up
        self.layer = layer

    def forward(self, classes: Classes, images: Tensor | None = None) -> Prompts:
        (context,) = self.context()
        hidden = self.down(classes.frozen)  # (C, D / 4)
        tokens = self.up(hidden * torch.sigmoid(1.702 * hidden))  # (C, M * width)
        return Prompts(context, deep={self.layer: tokens.view(-1, *context.shape)})


def build(clip: Clip, settings: PromptSettings, classes: int | None = None) -> Method:
    if clip.text.layers < 2:
        raise UserError(
            f"tcp puts tokens into a deeper layer, and the text tower of {clip.name} has none that takes them; use coop"
        )
    layer = min(max(1, round(2 / 3 * clip.text.layers)), clip.text.layers - 1)
    with seeded(settings.seed):
        down = nn.Linear(clip.dimension, max(1, clip.dimension // 4))
        up = nn.Linear(down.out_features, settings.context * clip.text.width)
    context = encoder(text_vectors(clip, settings, depth=1), settings)
    prompter = ClassAware(context, down, up, layer).to(clip.device)
    return Method(prompter, partial(knowledge_guided, weight=settings.weight))

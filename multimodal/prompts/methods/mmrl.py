"""MMRL: tokens of one shared space in the higher layers of both towers, beside what CLIP knows (Guo and Gu 2025, MMRL:
Multi-Modal Representation Learning for Vision-Language Models).

    before each of the last `depth` layers: text places hold A_l R, image rows hold B_l R,    A_l, B_l linear
    image: f of the class token by the frozen projection; r of the mean of the last image rows, each normalised, by P
    loss = α CE(f) + (1 − α) CE(r) + weight · (1 − cos(f, frozen f) + 1 − mean over classes of cos(text, frozen text))

Classes of the training are answered by α cos(f, text) + (1 − α) cos(r, text), others by cos(f, text) alone, for r was
made for the first; a mixed list has both. Trained are R, the A_l and B_l, and P, which starts at the frozen projection.
R's width is the model's (512 in the paper). The text's tokens take the places of the words before a class name, from
the first of the layers on, so that there are as many as `context` says. With the recipe "paper" they stand before all
words of the text, which is the frame's.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from multimodal.prompts.contexts import Classes, Prompts
from multimodal.prompts.methods import Method
from multimodal.prompts.methods.parts import encoder, random_vectors, seeded, text_vectors
from multimodal.prompts.objectives import represented
from multimodal.towers.image import last_projection, visual_layers, visual_width
from retrieval_prompts.errors import UserError

if TYPE_CHECKING:
    from multimodal.prompts.settings import PromptSettings
    from multimodal.towers.clip import Clip


class Represented(nn.Module):
    """Shared tokens, their image in the higher layers of both towers, and the projection of what becomes of them."""

    context: Tensor  # (M, width)

    def __init__(
        self, tokens: nn.Module, text: nn.ModuleDict, visual: nn.ModuleDict, last: Tensor, context: Tensor, own: float
    ) -> None:
        super().__init__()
        self.tokens = tokens  # () -> (1, M, D)
        self.text, self.visual = text, visual  # layer -> (M, D) to (M, width) of that tower
        self.last = nn.Parameter(last)  # (visual width, D)
        self.register_buffer("context", context, persistent=False)
        self.own = own

    def forward(self, classes: Classes, images: Tensor | None = None) -> Prompts:
        (tokens,) = self.tokens()
        deep, visual = ({int(at): part(tokens) for at, part in side.items()} for side in (self.text, self.visual))
        return Prompts(self.context, deep=deep, visual=visual, last=self.last, own=self.own)


def build(clip: Clip, settings: PromptSettings, classes: int | None = None) -> Method:
    published = settings.recipe == "paper"
    if settings.init.startswith(("gaussian", "zeros:")) and not published:
        raise UserError('mmrl leaves the first layers as they are, so words stand there; write --init "a photo of a"')
    if clip.text.layers < 2:
        raise UserError(
            f"mmrl puts tokens into deeper layers, and the text tower of {clip.name} has none that takes them; use coop"
        )
    if published and not clip.text.truncatable:
        raise UserError(
            f"the published mmrl puts tokens between words, which the text tower of {clip.name} does not take: it is "
            "not causal; leave out --recipe paper"
        )
    last = last_projection(clip)
    context = torch.zeros(0, clip.text.width, device=clip.device)
    if not published:
        (context,) = text_vectors(clip, settings, depth=1)
    seed, depth = settings.seed, settings.depth
    with seeded(seed):
        text, visual = (
            nn.ModuleDict({str(at): nn.Linear(clip.dimension, width) for at in range(first, layers)})
            for first, layers, width in (
                (max(1, clip.text.layers - depth), clip.text.layers, clip.text.width),
                (max(0, visual_layers(clip) - depth), visual_layers(clip), visual_width(clip)),
            )
        )
    tokens = encoder(random_vectors(1, settings.context, clip.dimension, seed=seed).to(context), settings)
    prompter = Represented(tokens, text, visual, last.clone(), context, settings.own).to(clip.device)
    objective = partial(represented, own=settings.own, weight=settings.weight)
    return Method(prompter, objective, prompts_images=True)

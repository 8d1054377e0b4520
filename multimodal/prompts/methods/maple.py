"""MaPLe: deep prompts in both towers, those of the images made of those of the text (Khattak et al. 2023, MaPLe:
Multi-modal Prompt Learning).

    visual prompts of layer l = F_l(text prompts of layer l),    F_l linear    loss = cross-entropy

Trained are M text vectors for each of the first `depth` layers and the F_l; an image gets as many vectors as a text.
With M = 2 the context starts at the last two words of `init`. The recipe "paper" starts at the first two, has the
others behind them as they are, and lets the F_l of the deeper layers start alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from multimodal.prompts.contexts import Classes, Prompts
from multimodal.prompts.methods import Method
from multimodal.prompts.methods.parts import encoder, seeded, text_vectors
from multimodal.prompts.objectives import cross_entropy
from multimodal.towers.image import visual_layers, visual_width

if TYPE_CHECKING:
    from multimodal.prompts.settings import PromptSettings
    from multimodal.towers.clip import Clip


class Coupled(nn.Module):
    """Text vectors of each layer, and their image in the image tower's same layer."""

    def __init__(self, text: nn.Module, project: nn.ModuleList) -> None:
        super().__init__()
        self.text = text  # () -> (depth, M, width)
        self.project = project  # of depth: (M, width) -> (M, visual width)

    def forward(self, classes: Classes, images: Tensor | None = None) -> Prompts:
        text = self.text()
        visual = {layer: project(text[layer]) for layer, project in enumerate(self.project)}
        return Prompts(text[0], deep={layer: text[layer] for layer in range(1, len(text))}, visual=visual)


def build(clip: Clip, settings: PromptSettings, classes: int | None = None) -> Method:
    vectors = text_vectors(clip, settings, min(settings.depth, visual_layers(clip)))
    with seeded(settings.seed):
        project = nn.ModuleList(nn.Linear(clip.text.width, visual_width(clip)) for _ in vectors)
        if settings.recipe == "paper":
            for deeper in project[2:]:
                deeper.load_state_dict(project[1].state_dict())
    prompter = Coupled(encoder(vectors, settings), project).to(clip.device)
    return Method(prompter, cross_entropy, prompts_images=True)

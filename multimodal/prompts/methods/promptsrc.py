"""PromptSRC: deep prompts in both towers, held near the frozen model (Khattak et al. 2023, Self-regulating Prompts).

    loss = cross-entropy + weight · (25 · L1(text, frozen mean of many templates) + 10 · L1(images, frozen images)
           + KL of the predictions from the frozen ones)

Trained are independent vectors for each of the first `depth` layers of both towers. What is kept is the mean of the
prompts of all epochs under a Gaussian around `average_at` of them (0.75, that is 15 of 20 epochs, with deviation 1).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from multimodal.prompts.methods import Method
from multimodal.prompts.methods.parts import Layered, encoder, text_vectors, visual_vectors
from multimodal.prompts.objectives import self_regularised

if TYPE_CHECKING:
    from multimodal.prompts.settings import PromptSettings
    from multimodal.towers.clip import Clip


def build(clip: Clip, settings: PromptSettings, classes: int | None = None) -> Method:
    text = encoder(text_vectors(clip, settings, settings.depth), settings)
    visual = encoder(visual_vectors(clip, settings), settings)
    objective = partial(self_regularised, weight=settings.weight)
    average = settings.average_at, settings.average_width
    return Method(Layered(text, visual).to(clip.device), objective, average=average, ensemble=True, prompts_images=True)

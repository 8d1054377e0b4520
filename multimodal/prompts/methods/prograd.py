"""ProGrad: CoOp that unlearns nothing of zero-shot CLIP (Zhu et al. 2023, Prompt-aligned Gradient for Prompt Tuning).

    gradient = a                             where a·b ≥ 0
               a − weight · (a·b / b·b) b    elsewhere

with a the gradient of the cross-entropy and b that of the KL divergence from the zero-shot predictions. Trained is
CoOp's context.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from multimodal.prompts.methods import Method
from multimodal.prompts.methods.parts import shared
from multimodal.prompts.objectives import projected

if TYPE_CHECKING:
    from multimodal.prompts.settings import PromptSettings
    from multimodal.towers.clip import Clip


def build(clip: Clip, settings: PromptSettings, classes: int | None = None) -> Method:
    return Method(shared(clip, settings, classes), partial(projected, weight=settings.weight))

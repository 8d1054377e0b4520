"""CoOp: context vectors before the class names (Zhou et al. 2022, Learning to Prompt for Vision-Language Models).

    text of class c = tower([v1] … [vM] [name of c] .)    loss = cross-entropy

Trained are v1 … vM: the same for all classes, or with `class_specific` each class its own. Class-specific contexts are
the only prompts whose size depends on the classes, and they serve no others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from multimodal.prompts.methods import Method
from multimodal.prompts.methods.parts import shared
from multimodal.prompts.objectives import cross_entropy

if TYPE_CHECKING:
    from multimodal.prompts.settings import PromptSettings
    from multimodal.towers.clip import Clip


def build(clip: Clip, settings: PromptSettings, classes: int | None = None) -> Method:
    return Method(shared(clip, settings, classes), cross_entropy)

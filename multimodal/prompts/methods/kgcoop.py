"""KgCoOp: CoOp held near the hand-written prompt (Yao et al. 2023, Visual-Language Prompt Tuning with
Knowledge-guided Context Optimization).

    loss = cross-entropy + weight · (1 − mean over classes of cos(tuned text, frozen text))

Trained is CoOp's context; the frozen text is the template's.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from multimodal.prompts.methods import Method
from multimodal.prompts.methods.parts import shared
from multimodal.prompts.objectives import knowledge_guided

if TYPE_CHECKING:
    from multimodal.prompts.settings import PromptSettings
    from multimodal.towers.clip import Clip


def build(clip: Clip, settings: PromptSettings, classes: int | None = None) -> Method:
    return Method(shared(clip, settings, classes), partial(knowledge_guided, weight=settings.weight))

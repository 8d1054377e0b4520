"""KgCoOp: CoOp held near the hand-written prompt (Yao et al. 2023, Visual-Language Prompt Tuning with
Knowledge-guided Context Optimization).

    loss = cross-entropy + weight · (1 − mean over classes of cos(tuned text, frozen text))

Trained is CoOp's context; the frozen text is the template's.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from multimodal.prompts.methods import Method
from multimodal.prompts.methods.parts import shared
from multimodal.prompts.objectives import knowledge_guided

if TYPE_CHECKING:
    from multimodal.towers.clip import Clip
    from multimodal.training.settings import Settings

DEFAULTS: dict[str, Any] = {
    "context": 4,
    "epochs": 100,
    "learning_rate": 2e-3,
    "batch_size": 128,
    "weight": 8.0,
}


def build(clip: Clip, settings: Settings, classes: int | None = None) -> Method:
    return Method(shared(clip, settings, classes), partial(knowledge_guided, weight=settings.weight))

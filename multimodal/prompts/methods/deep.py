"""Deep text prompts: context vectors of their own in each of the first layers (as the "language only" prompts that
Khattak et al. 2023, MaPLe, compare with; after VPT's deep prompts, Jia et al. 2022).

    before layer l < depth: the context's places hold [v1] … [vM] of layer l    loss = cross-entropy

Trained are the vectors of all `depth` layers; depth 1 is CoOp.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from multimodal.prompts.methods import Method
from multimodal.prompts.methods.parts import Layered, encoder, only_shared, text_vectors
from multimodal.prompts.objectives import cross_entropy

if TYPE_CHECKING:
    from multimodal.towers.clip import Clip
    from multimodal.training.settings import Settings

DEFAULTS: dict[str, Any] = {"context": 4, "depth": 12, "epochs": 20, "learning_rate": 2e-3, "batch_size": 32}


def build(clip: Clip, settings: Settings, classes: int | None = None) -> Method:
    only_shared(settings)
    text = encoder(text_vectors(clip, settings, settings.depth), settings)
    return Method(Layered(text).to(clip.device), cross_entropy)

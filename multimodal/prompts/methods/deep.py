"""Deep text prompts: context vectors of their own in each of the first layers (as the "language only" prompts that
Khattak et al. 2023, MaPLe, compare with; after VPT's deep prompts, Jia et al. 2022).

    before layer l < depth: the context's places hold [v1] … [vM] of layer l    loss = cross-entropy

Trained are the vectors of all `depth` layers; depth 1 is CoOp.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from multimodal.prompts.methods import Method
from multimodal.prompts.methods.parts import Layered, encoder, text_vectors
from multimodal.prompts.objectives import cross_entropy

if TYPE_CHECKING:
    from multimodal.prompts.settings import PromptSettings
    from multimodal.towers.clip import Clip


def build(clip: Clip, settings: PromptSettings, classes: int | None = None) -> Method:
    text = encoder(text_vectors(clip, settings, settings.depth), settings)
    return Method(Layered(text).to(clip.device), cross_entropy)

"""TPT: a context for one test image, without labels (Shu et al. 2022, Test-Time Prompt Tuning).

    minimise H(mean of p over the views that p is surest of),    H the entropy, p the predictions for one view

The image and random crops of it should be given the same answer with confidence. A step is taken from the context at
hand (a template's words, or a tuned one), the image is classified, and the context is forgotten.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from retrieval_prompts.errors import UserError

if TYPE_CHECKING:
    from multimodal.prompts.contexts import Classes
    from multimodal.towers.clip import Clip


def adapt(
    clip: Clip,
    classes: Classes,
    context: Tensor,
    views: Tensor,
    *,
    deep: Mapping[int, Tensor] | None = None,
    steps: int = 1,
    learning_rate: float = 5e-3,
    confident: float = 0.1,
) -> Tensor:
    """Logits (C,) of one image, under a context that was tuned on its views alone.

    Args:
        context: (M, width), or (C, M, width) if class-specific; left as it is.
        views: (V, D), unit-length image features; the first is the image itself, the others its augmented views. The
            paper uses 64.
        deep: what a tuned prompt puts into deeper layers of the text tower (see `contexts.Prompts`); stays as it is.
        steps: of AdamW; 0 gives the zero-shot logits of `context`.
        confident: the share of views, those of least entropy before the first step, that is learned from.

    Raises:
        UserError: when there is no view, or when `confident` is no share.
    """
    if len(views) == 0 or not 0 < confident <= 1:
        raise UserError(
            "test-time tuning needs 1 view or more and a share of confident ones above 0 and up to 1, "
            f"got {len(views)} views and {confident}"
        )
    tuned = nn.Parameter(context.detach().clone())
    optimizer = torch.optim.AdamW([tuned], lr=learning_rate)

    def logits(of: Tensor) -> Tensor:
        text = F.normalize(clip.text.encode(classes.rows, tuned, deep or {}), dim=-1)  # (C, D)
        return (clip.scale * of @ text.T).float()

    chosen = views
    with torch.enable_grad():
        for step in range(steps):
            predicted = logits(chosen)
            if step == 0:
                picked = surest(predicted.detach(), confident)
                chosen, predicted = views[picked], predicted[picked]
            optimizer.zero_grad()
            marginal_entropy(predicted).backward()
            optimizer.step()
    with torch.no_grad():
        return logits(views[:1])[0]


def surest(logits: Tensor, share: float) -> Tensor:
    """(V, C) -> the positions of the views of least entropy, that share of them, one at least."""
    log = logits.log_softmax(dim=-1)
    entropy = -(log.exp() * log).sum(dim=-1)
    return entropy.argsort(stable=True)[: max(1, int(share * len(logits)))]


def marginal_entropy(logits: Tensor) -> Tensor:
    """(V, C) -> the entropy of the mean of the views' probabilities, in nats."""
    log = logits.log_softmax(dim=-1).logsumexp(dim=0) - torch.tensor(len(logits)).log()
    return -(log.exp() * log).sum()

"""Losses of prompt learning: what a step computed in, a scalar out. Knows no model, no prompt and no training loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Outputs:
    """What one training step computed for B images and C classes; all features have unit length D.

    Args:
        logits: (B, C), cosines times `scale`.
        labels: (B,), int64.
        text: (C, D), or (B, C, D) where prompts depend on the image: the prompted class texts.
        images: (B, D), prompted where the method prompts images, else the frozen features themselves.
        frozen_text: (C, D), of the hand-written template.
        ensemble_text: (C, D), the mean over many hand-written templates.
        frozen_images: (B, D), without prompts.
        scale: what the model multiplies a cosine by (the reciprocal of its temperature).
        parameters: what is trained.
        teacher: (B, C), what a teacher says of the images.
        rows: (B, C), what the rows in the image tower say of them (see `contexts.Prompts.last`).
    """

    logits: Tensor
    labels: Tensor
    text: Tensor
    images: Tensor
    frozen_text: Tensor
    ensemble_text: Tensor
    frozen_images: Tensor
    scale: float
    parameters: Sequence[nn.Parameter]
    teacher: Tensor | None = None
    rows: Tensor | None = None


def cross_entropy(outputs: Outputs) -> Tensor:
    """Softmax cross-entropy of the labels (CoOp, Zhou et al. 2022)."""
    return F.cross_entropy(outputs.logits.float(), outputs.labels)


def knowledge_guided(outputs: Outputs, weight: float = 8.0) -> Tensor:
    """Cross-entropy + weight · (1 − mean cosine of tuned and frozen class text) (KgCoOp, Yao et al. 2023).

    Of unit-length features |a − b|² = 2 (1 − cos(a, b)), so this is the paper's distance as its code computes it.
    """
    cosines = (outputs.text * outputs.frozen_text).sum(dim=-1)  # (C,) or (B, C)
    return cross_entropy(outputs) + weight * (1 - cosines.mean())


def projected(outputs: Outputs, weight: float = 1.0) -> Tensor:
    """Cross-entropy whose gradient never opposes the zero-shot predictions (ProGrad, Zhu et al. 2023).

    With a the gradient of the cross-entropy and b that of the KL divergence from the zero-shot predictions, all
    parameters as one vector: the gradient is a − weight · (a·b / b·b) b where a·b < 0, and a elsewhere. The value
    is the cross-entropy. Costs a backward pass for each of the two losses; the one through the result is free.
    """
    loss = cross_entropy(outputs)
    if not loss.requires_grad:
        return loss
    target = _zero_shot_logits(outputs, outputs.frozen_text).softmax(dim=-1)
    distillation = F.cross_entropy(outputs.logits.float(), target)  # the KL divergence plus a constant
    parameters = list(outputs.parameters)
    guide = _gradient(distillation, parameters)
    gradient = _gradient(loss, parameters)
    inner = _inner(gradient, guide)
    if inner < 0:
        step = weight * inner / _inner(guide, guide)
        gradient = [a - step * b for a, b in zip(gradient, guide, strict=True)]
    surrogate = _inner(parameters, gradient)
    return loss.detach() + (surrogate - surrogate.detach())


def self_regularised(outputs: Outputs, weight: float = 1.0) -> Tensor:
    """Cross-entropy + weight · (25 text + 10 images + predictions) (PromptSRC, Khattak et al. 2023).

    The mean absolute difference of prompted and frozen text, the text of the ensemble being the frozen one; that of
    prompted and frozen images; and the KL divergence of the prompted predictions from the frozen ones, averaged over
    images and classes as in the paper's code.
    """
    text = F.l1_loss(outputs.text, outputs.ensemble_text.expand_as(outputs.text))
    images = F.l1_loss(outputs.images, outputs.frozen_images)
    frozen = _zero_shot_logits(outputs, outputs.ensemble_text).log_softmax(dim=-1)
    tuned = outputs.logits.float().log_softmax(dim=-1)
    divergence = (frozen.exp() * (frozen - tuned)).mean()
    return cross_entropy(outputs) + weight * (25 * text + 10 * images + divergence)


def represented(outputs: Outputs, own: float = 0.7, weight: float = 1.0) -> Tensor:
    """own · cross-entropy + (1 − own) · that of the rows + weight · (1 − mean cosine of images and frozen images + 1 −
    mean cosine of class texts and frozen ones) (MMRL, Guo and Gu 2025).
    """
    assert outputs.rows is not None, "there are rows in the image tower"
    by_rows = F.cross_entropy(outputs.rows.float(), outputs.labels)
    images, text = (
        1 - (one * frozen).sum(dim=-1).mean()
        for one, frozen in ((outputs.images, outputs.frozen_images), (outputs.text, outputs.frozen_text))
    )
    return own * cross_entropy(outputs) + (1 - own) * by_rows + weight * (images + text)


def distilled(outputs: Outputs, temperature: float = 1.0) -> Tensor:
    """temperature² · the KL divergence of the predictions from the teacher's, both at that temperature (Hinton et al.
    2015), the mean over images; labels are not read (PromptKD, Li et al. 2024, whose code takes 1000 / C times that).
    """
    assert outputs.teacher is not None, "there is a teacher to learn from"
    own = (outputs.logits.float() / temperature).log_softmax(dim=-1)
    taught = (outputs.teacher.float() / temperature).log_softmax(dim=-1)
    return temperature**2 * F.kl_div(own, taught, log_target=True, reduction="batchmean")


def _zero_shot_logits(outputs: Outputs, text: Tensor) -> Tensor:
    """(C, D) frozen class texts -> (B, C)."""
    return (outputs.scale * outputs.frozen_images @ text.T).float()


def _gradient(loss: Tensor, parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    """One tensor a parameter, zero where the loss does not depend on it."""
    found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


def _inner(one: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
    return torch.stack([(a * b).sum() for a, b in zip(one, other, strict=True)]).sum()

"""PromptKD: prompts in the image tower learn what a larger CLIP says of pictures without labels (Li et al. 2024,
PromptKD: Unsupervised Prompt Distillation for Vision-Language Models).

    student of class c = scale · cos(P(image under the prompts), t_c),    P(x) = W2 relu(W1 x + b1) + b2
    loss = T² · KL(softmax(teacher / T), softmax(student / T))

t_c is the teacher's frozen class text, which both share, so that the student's own text tower is not used. Trained are
the vectors of the first `depth` image layers and P. The paper normalises P's hidden layer over the batch and draws its
weights at random, its teacher is tuned first; here W1, b1 are drawn, and W2, b2 start at the ridge regression from the
frozen student's images to the teacher's (see `start`), which is what no step at all gives.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from multimodal.prompts.contexts import Classes, Prompts, hidden
from multimodal.prompts.methods import Method
from multimodal.prompts.methods.parts import encoder, seeded, visual_vectors
from multimodal.prompts.objectives import distilled
from multimodal.prompts.teacher import Teacher
from retrieval_prompts.errors import UserError

if TYPE_CHECKING:
    from multimodal.prompts.settings import PromptSettings
    from multimodal.towers.clip import Clip

RIDGE = torch.logspace(-4, 3, 22)  # penalties that are tried, times the mean square of a hidden value


class Student(nn.Module):
    """Vectors for the first image layers, and the projector into the teacher's space; the texts are the teacher's."""

    def __init__(self, visual: nn.Module, first: nn.Linear, second: nn.Linear, teacher: Teacher, width: int) -> None:
        super().__init__()
        self.visual = visual  # () -> (depth, V, visual width)
        self.first, self.second = first, second
        self.teacher, self.width = teacher, width

    def forward(self, classes: Classes, images: Tensor | None = None) -> Prompts:
        no_context = torch.zeros(0, self.width, device=self.first.weight.device)
        layers = tuple((part.weight, part.bias) for part in (self.first, self.second))
        visual = dict(enumerate(self.visual()))
        return Prompts(no_context, visual=visual, project=layers, texts=self.teacher.vectors)

    @torch.no_grad()
    def start(self, own: Tensor, taught: Tensor) -> None:
        """Let the projector begin at the linear map of its hidden layer that is nearest to what the teacher sees.

        Args:
            own, taught: (n, D) and (n, D'), unit-length features of the same images by the frozen towers. The penalty
                is the one of least generalised cross-validation error (Golub, Heath and Wahba 1979).
        """
        x = hidden(own, self.first.weight, self.first.bias).double()
        y = taught.double()
        center, mean = x.mean(dim=0), y.mean(dim=0)
        x, y = x - center, y - mean
        values, basis = torch.linalg.eigh(x.T @ x)  # (H,), (H, H)
        values = values.clamp_min(0)
        inner = basis.T @ (x.T @ y)  # (H, D')
        penalties = RIDGE.to(values) * max(float(values.sum()) / len(values), 1e-12)

        def error(penalty: Tensor) -> float:
            kept = 1 / (values + penalty)
            weight = inner.square().sum(dim=1)
            residual = y.square().sum() - 2 * (weight * kept).sum() + (weight * values * kept.square()).sum()
            free = 1 - (1 + (values * kept).sum()) / len(x)
            return float(residual / free.clamp_min(1e-6).square())

        best = min(penalties, key=error)
        weight = basis @ (inner / (values + best)[:, None])  # (H, D')
        self.second.weight.copy_(weight.T)
        self.second.bias.copy_(mean - center @ weight)


def build(clip: Clip, settings: PromptSettings, classes: int | None = None, teacher: Teacher | None = None) -> Method:
    if teacher is None:
        if settings.teacher is None:
            raise UserError(
                "promptkd learns from a larger CLIP: give --teacher MODEL (teacher=...), and --teacher-pretrained with "
                "an open_clip name"
            )
        teacher = Teacher.load(settings.teacher, settings.teacher_pretrained, settings.template, clip.device)
    visual = encoder(visual_vectors(clip, settings), settings)
    with seeded(settings.seed):
        first = nn.Linear(clip.dimension, teacher.dimension)
        second = nn.Linear(teacher.dimension, teacher.dimension)
    prompter = Student(visual, first, second, teacher, clip.text.width).to(clip.device)
    objective = partial(distilled, temperature=settings.kd_temperature)
    return Method(prompter, objective, prompts_images=True, teacher=teacher)

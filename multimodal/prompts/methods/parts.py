"""What prompters are put together from: initial vectors, and modules that lay them out over classes and layers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from multimodal.prompts.contexts import Classes, Prompts, initial_context
from multimodal.towers.image import visual_layers, visual_width
from retrieval_prompts.errors import UserError
from retrieval_prompts.prompts.encoders import ENCODERS

if TYPE_CHECKING:
    from multimodal.prompts.settings import PromptSettings
    from multimodal.towers.clip import Clip

DEVIATION = 0.02  # of random vectors, in all the papers


class Shared(nn.Module):
    """One context for all images: of all classes (M, width), or of each class its own (C, M, width)."""

    def __init__(self, encoder: nn.Module, *, class_specific: bool = False) -> None:
        super().__init__()
        self.encoder = encoder  # () -> (1, M, width) or (C, M, width)
        self.class_specific = class_specific

    def forward(self, classes: Classes, images: Tensor | None = None) -> Prompts:
        vectors = self.encoder()
        return Prompts(vectors if self.class_specific else vectors[0])


class Layered(nn.Module):
    """Vectors of their own for each of the first layers of the text tower and, with `visual`, of the image tower."""

    def __init__(self, text: nn.Module, visual: nn.Module | None = None) -> None:
        super().__init__()
        self.text = text  # () -> (text depth, M, width)
        self.visual = visual  # () -> (visual depth, V, visual width)

    def forward(self, classes: Classes, images: Tensor | None = None) -> Prompts:
        context, *deeper = self.text()
        visual = self.visual() if self.visual is not None else ()
        return Prompts(context, deep=dict(enumerate(deeper, start=1)), visual=dict(enumerate(visual)))


def shared(clip: Clip, settings: PromptSettings, classes: int | None) -> Shared:
    """The context that CoOp and its kin train.

    Raises:
        UserError: for a class-specific context without the number of classes.
    """
    if not settings.class_specific:
        return Shared(encoder(text_vectors(clip, settings, depth=1), settings)).to(clip.device)
    if classes is None:
        raise UserError("class-specific contexts need the number of classes; give it, or leave them shared")
    # Random contexts differ from class to class; words are the same for all
    own = [initial_context(clip, settings.init, settings.context, settings.seed + index) for index in range(classes)]
    return Shared(encoder(torch.stack(own), settings), class_specific=True).to(clip.device)


def encoder(initial: Tensor, settings: PromptSettings) -> nn.Module:
    """The prompt encoder of the settings, at its initial vectors (layers, length, width)."""
    with seeded(settings.seed):
        return ENCODERS[settings.encoder](initial)


def text_vectors(clip: Clip, settings: PromptSettings, depth: int) -> Tensor:
    """(depth, M, width): the initial context, and random vectors for deeper layers, as far as the text tower has them.

    Raises:
        UserError: when the layers of the text tower cannot be prompted.
    """
    context = initial_context(clip, settings.init, settings.context, settings.seed)  # (M, width)
    if depth > 1 and clip.text.layers == 0:
        raise UserError(
            f"{settings.method} prompts deeper layers, and the text tower of {clip.name} is a Hugging Face one, whose "
            "layers take none; use coop, or another model"
        )
    deeper = max(0, min(depth, clip.text.layers) - 1)
    vectors = random_vectors(deeper, *context.shape, seed=settings.seed)
    return torch.cat([context[None], vectors.to(context)])


def visual_vectors(clip: Clip, settings: PromptSettings) -> Tensor:
    """(depth, V, visual width): random vectors for the first layers, as far as the image tower has them.

    Raises:
        UserError: when the image tower cannot be prompted.
    """
    depth = min(settings.depth, visual_layers(clip))
    return random_vectors(depth, settings.visual, visual_width(clip), seed=settings.seed + 1).to(clip.device)


def random_vectors(*shape: int, seed: int) -> Tensor:
    """N(0, 0.02), the same for the same seed on every device."""
    return DEVIATION * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random initial weights that depend on the seed alone, and leave the caller's random state as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield

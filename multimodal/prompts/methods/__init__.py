"""Methods of prompt learning: what is trained and by which loss, one short file each. They know no loop and no data.

A new method is a file with `build`, and its name and defaults in `prompts.settings`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

from torch import Tensor, nn

from multimodal.prompts.settings import METHODS, SEARCH, PromptSettings
from retrieval_prompts.errors import UserError

if TYPE_CHECKING:
    from multimodal.prompts.objectives import Outputs
    from multimodal.prompts.teacher import Teacher
    from multimodal.towers.clip import Clip


@dataclass(frozen=True)
class Method:
    """What a training run needs to know of a method.

    Args:
        prompter: forward(classes: Classes, images: Tensor | None) -> Prompts. `images` are unit-length features (B, D)
            without prompts; only a method whose prompts depend on them reads them. Its state_dict is what is saved.
        objective: Outputs -> scalar.
        average: for Gaussian averaging of the prompts of all epochs (PromptSRC, section 3.2): mean and deviation,
            as fractions of the epochs; None: the last prompts, or the best, are kept.
        ensemble: the objective compares with the mean over many templates; else it gets the template's text there.
        prompts_images: the prompts enter the image tower too, so cached image features are of no use in training.
        teacher: what the objective compares with is said by this model, and labels are not read; its prompter has
            `start(own, taught)`, from the features of both.
    """

    prompter: nn.Module
    objective: Callable[[Outputs], Tensor]
    average: tuple[float, float] | None = None
    ensemble: bool = False
    prompts_images: bool = False
    teacher: Teacher | None = None


class MethodFile(Protocol):
    """What multimodal/prompts/methods/<name>.py holds."""

    def build(self, clip: Clip, settings: PromptSettings, classes: int | None = None, **known: Any) -> Method:
        """A new method at its initial prompts; `classes`, their number, is for class-specific contexts only."""
        ...


def build_method(
    clip: Clip, settings: PromptSettings, classes: int | None = None, teacher: Teacher | None = None
) -> Method:
    """The settings' method; `teacher`: where it is known already. Raises UserError."""
    known = {} if teacher is None else {"teacher": teacher}
    return method(settings.method).build(clip, settings, classes, **known)


def method(name: str) -> MethodFile:
    """Raises UserError for a name that is neither in METHODS nor in SEARCH."""
    if name not in METHODS and name not in SEARCH:
        raise UserError(f"there is no method {name!r}; the methods are {', '.join((*METHODS, *SEARCH))}")
    place = "multimodal.prompts" if name in SEARCH else "multimodal.prompts.methods"
    return cast(MethodFile, importlib.import_module(f"{place}.{name}"))

"""How prompts for CLIP are made and trained: plain values; each method has defaults of its own."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from multimodal.data.templates import DEFAULT, fill
from multimodal.towers.tokens import POSITIONS
from retrieval_prompts.errors import UserError

CHOICES: dict[str, tuple[str, ...]] = {
    "position": POSITIONS,
    "encoder": ("table", "mlp", "lstm"),
    "precision": ("auto", "float32", "bfloat16"),
}
COUNTS = ("context", "epochs", "batch_size", "views", "depth", "visual")
LARGEST = 2**31 - 1


@dataclass(frozen=True)
class Settings:
    """How prompts are made and trained. `Settings.of` puts the defaults of a method under what is given.

    Args:
        method: a file of `multimodal.prompts.methods`.
        context: context vectors before the class name, M.
        init: where they start: words, or "gaussian".
        position: of the class name: "end", "middle" or "front" of the prompt.
        class_specific: each class has a context of its own; it then serves no other classes.
        encoder: "table", "mlp" or "lstm".
        template: of the frozen class texts that regularised methods compare with, and of zero-shot.
        shots: training images a class; None: all.
        epochs: passes over the training images.
        learning_rate, warmup, weight_decay: of AdamW, see `retrieval_prompts.training.loop.LoopSettings`.
        batch_size: images a step.
        views: views of each image that are cached: 1 is the image itself, more are random crops; an epoch reads one.
        weight: of the method's own regulariser.
        depth: layers that have prompts, for methods with deep prompts, in the text or image tower; at most the tower's.
        visual: vectors that enter the image tower, for vpt and promptsrc; maple has as many as context vectors.
        calibrate: fit the temperature of the probabilities on predictions for images left out of training.
        precision: of the matrix products of a training step: "float32", "bfloat16", or "auto" (bfloat16 where the
            hardware has it). Prompts, losses and all features that are kept are float32.
        seed: of the shots, the initial vectors and the batches.
    """

    method: str = "coop"
    context: int = 4
    init: str = "a photo of a"
    position: str = "end"
    class_specific: bool = False
    encoder: str = "table"
    template: str = DEFAULT
    shots: int | None = 16
    epochs: int = 50
    learning_rate: float = 2e-3
    warmup: float = 0.1
    weight_decay: float = 0.0
    batch_size: int = 32
    views: int = 1
    weight: float = 1.0
    depth: int = 1
    visual: int = 4
    calibrate: bool = True
    precision: str = "float32"
    seed: int = 1

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise UserError(
                    f"--{name} must be {', '.join(choices[:-1])} or {choices[-1]}, got {getattr(self, name)!r}"
                )
        for name in (*COUNTS, *(("shots",) if self.shots is not None else ())):
            if not 1 <= getattr(self, name) <= LARGEST:
                raise UserError(f"--{name.replace('_', '-')} must be 1 or more, got {getattr(self, name)}")
        if not 0 < self.learning_rate <= 1e6:
            raise UserError(f"--lr must be above 0 and at most 1e+06, got {self.learning_rate}")
        for name, most in (("warmup", 1), ("weight_decay", 1), ("weight", 1e6), ("seed", 2**32 - 1)):
            if not 0 <= getattr(self, name) <= most:
                raise UserError(f"--{name.replace('_', '-')} must be from 0 to {most:g}, got {getattr(self, name)}")
        fill(self.template, "class")  # raises where the template has no place for a name

    @classmethod
    def of(cls, **given: Any) -> Settings:
        """The method's defaults, with what else is given in their place; None is not given (shots None: all).

        Raises UserError for a name that is no setting, and a method that there is not.
        """
        from multimodal.prompts.methods import method

        given = {name: value for name, value in given.items() if value is not None or name == "shots"}
        if unknown := set(given) - {field.name for field in fields(cls)}:
            raise UserError(
                f"no such setting: {', '.join(sorted(unknown))}; there are {', '.join(f.name for f in fields(cls))}"
            )
        return cls(**{**method(given.get("method", cls.method)).DEFAULTS, **given})

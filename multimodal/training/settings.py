"""How prompts for CLIP are made and trained: plain values; each method has defaults of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from multimodal.data.templates import template_for
from multimodal.heads import HEADS
from multimodal.prompts.recipes import paper
from multimodal.prompts.settings import AUTO, LABELLED, TAUGHT, PromptSettings
from retrieval_prompts.prompts.settings import Values, setting

if TYPE_CHECKING:
    from retrieval_prompts.training.loop import LoopSettings

ADAM_EPS = 1e-3  # of TCP's authors, who train in half precision
MOST_VIEWS = 256  # that a cache of features holds of an image


@dataclass(frozen=True)
class Settings(PromptSettings):
    """How prompts are made and trained. What is not given is the method's default; `shots` None: all.

    Prompts, losses and all features that are kept are float32, whatever the precision; "auto" is bfloat16 where the
    hardware has it. Of several views, which are cached, one is the image itself, the others are random crops of it.
    """

    shots: int | None = setting(
        16, help="training images a class: a number, or all", low=1, none="all", read_by=LABELLED
    )
    unlabelled: str | None = setting(
        None, help="folder of pictures to learn from  [default: the training images, without labels]", read_by=TAUGHT
    )
    epochs: int = setting(None, help="passes over the training images", low=1)
    learning_rate: float = setting(None, help="peak learning rate", above=0, high=1e6, option="--lr")
    optimizer: str = setting(
        None,
        help="sgd has momentum 0.9, adam eps 0.001 (TCP's); weight decay is part of the gradient in both",
        choices=("adamw", "sgd", "adam"),
    )
    schedule: str = setting(
        None,
        help="of the learning rate; steps: it rises, then falls as a cosine; epochs: one at 1e-5, then that cosine",
        choices=("steps", "epochs"),
    )
    warmup: float = setting(
        None,
        help="share of the steps in which the learning rate rises",
        low=0,
        high=1,
        read_by={"schedule": ("steps",)},
    )
    weight_decay: float = setting(None, help="of the optimizer", low=0, high=1)
    clip_norm: float = setting(None, help="largest norm of a step's gradient; 0: any", low=0, high=1e6)
    batch_size: int = setting(None, help="images a step", low=1)
    last_batch: str = setting(
        None, help="of an epoch, where it is smaller", choices=("kept", "dropped"), read_by=LABELLED
    )
    augment: str = setting(
        None,
        help="an epoch reads one of --views of each image, or a random crop of its own",
        choices=("views", "crops"),
        read_by=LABELLED,
    )
    views: int = setting(
        None, help="views of each image, of which an epoch reads one", low=1, read_by={"augment": ("views",)}
    )
    calibrate: bool = setting(True, help="fit the temperature of the probabilities", read_by=LABELLED)
    head: str = setting(
        None,
        help="what answers for the classes of the training: chosen by held-out shots, none, or one of these",
        choices=("auto", "none", *HEADS),
        read_by=LABELLED,
    )
    precision: str = setting("float32", help="of training", choices=("auto", "float32", "bfloat16"))

    @property
    def cached_views(self) -> int:
        """How many views of each image training reads: of crops one an epoch, beside the image itself."""
        return self.views if self.augment == "views" else min(1 + self.epochs, MOST_VIEWS)

    def loop(self, **more: Any) -> LoopSettings:
        """How the common loop trains."""
        from retrieval_prompts.training.loop import LoopSettings

        return LoopSettings(
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            warmup=self.warmup,
            weight_decay=self.weight_decay,
            clip=self.clip_norm or None,
            optimizer=self.optimizer,
            eps=ADAM_EPS if self.optimizer == "adam" else 1e-8,
            schedule=self.schedule,
            **more,
        )


def on_data(given: Mapping[str, Any], dataset: str, *, base: bool = False) -> Settings:
    """The settings that were given by name; what was not is the data set's own: its published template, and with the
    recipe "paper" what the method's paper has for it.

    Args:
        base: trained on base classes, to be scored on new ones as well.

    Raises:
        UserError: for a name that is no setting, and a value that cannot be.
    """
    plain = Settings.of(**given)
    own = {"template": template_for(dataset)}
    if plain.recipe == "paper" and plain.method != AUTO:
        own |= paper(plain.method, plain.shots, dataset, base=base)
    return Settings.of(**{**own, **given})


TPT = {"adapt": ("tpt",)}


@dataclass(frozen=True)
class Adaptation(Values):
    """How a prompt is tuned anew for each picture that it classifies; the defaults are those of the paper."""

    KIND: ClassVar[str] = "adapt"
    DEFAULTS: ClassVar[Mapping[str, Mapping[str, Any]]] = {"none": {}, "tpt": {}}
    GROUP: ClassVar[str] = "A prompt for each picture"

    adapt: str = setting("none", help="tune the prompt for each picture, without its class", choices=("none", "tpt"))
    views: int = setting(64, help="of a picture: itself and random crops, encoded once and cached", low=2, read_by=TPT)
    steps: int = setting(1, help="of that tuning", low=0, high=1000, option="--adapt-steps", read_by=TPT)
    learning_rate: float = setting(5e-3, help="of that tuning", above=0, high=1e6, option="--adapt-lr", read_by=TPT)
    confident: float = setting(
        0.1, help="share of the views that is learned from, the surest", above=0, high=1, read_by=TPT
    )

"""How prompts for CLIP are made and trained: plain values; each method has defaults of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from multimodal.heads import HEADS
from multimodal.prompts.settings import LABELLED, TAUGHT, PromptSettings
from retrieval_prompts.prompts.settings import Values, setting


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
    warmup: float = setting(0.1, help="share of the steps in which the learning rate rises", low=0, high=1)
    weight_decay: float = setting(0.0, help="of AdamW", low=0, high=1)
    batch_size: int = setting(None, help="images a step", low=1)
    views: int = setting(1, help="views of each image, of which an epoch reads one", low=1)
    calibrate: bool = setting(True, help="fit the temperature of the probabilities", read_by=LABELLED)
    head: str = setting(
        "auto",
        help="what answers for the classes of the training: chosen by held-out shots, none, or one of these",
        choices=("auto", "none", *HEADS),
        read_by=LABELLED,
    )
    precision: str = setting("float32", help="of training", choices=("auto", "float32", "bfloat16"))


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

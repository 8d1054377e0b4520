"""How prompts for other tasks are made and trained: plain values, and their defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from retrieval_prompts.prompts.settings import PromptSettings, setting


@dataclass(frozen=True)
class LabelSettings(PromptSettings):
    """How a prompt for labelled texts is made and trained. The defaults are one set for all data."""

    DEFAULTS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "input": {**PromptSettings.DEFAULTS["input"], "learning_rate": 1e-3},
        "prefix": {**PromptSettings.DEFAULTS["prefix"], "learning_rate": 1e-2},
    }

    kind: str = setting("prefix", help="of the prompt", choices=("prefix", "input"))
    max_steps: int = setting(40, help="training steps; 0: the frozen model", low=0)
    learning_rate: float = setting(None, help="peak learning rate", above=0, high=1e30, option="--lr")
    batch_size: int = setting(16, help="texts a step", low=1)
    precision: str = setting("auto", help="of training", choices=("auto", "float32", "bfloat16"))


@dataclass(frozen=True)
class WritingSettings(PromptSettings):
    """How a prompt for a language model is made and trained. The defaults are one set for all data."""

    DEFAULTS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "input": {**PromptSettings.DEFAULTS["input"], "length": 16, "init": "vocab", "learning_rate": 3e-2}
    }

    max_steps: int = setting(200, help="training steps, at most", low=1)
    learning_rate: float = setting(None, help="peak learning rate", above=0, high=1e30, option="--lr")
    batch_size: int = setting(8, help="pairs a step", low=1)
    precision: str = setting("auto", help="of training", choices=("auto", "float32", "bfloat16"))

"""What a prompt folder of CLIP holds; the format is that of all prompts, see `retrieval_prompts.prompts.folder`.

Knows no method: `state` is a prompter's state_dict, whatever its names and shapes are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from retrieval_prompts.errors import UserError
from retrieval_prompts.prompts.folder import DESCRIPTION, describe, read, strictly, write

PASSING = ("images_encoded", "seconds")  # of a run, not of its prompts: the same training writes the same folder


@dataclass(frozen=True)
class Saved:
    """Prompts for a CLIP.

    Args:
        state: the prompter's weights by name, float32.
        settings: fields of `Settings`.
        base: the frozen model: "name", "pretrained", "fingerprint".
        classes: the names that the prompts were trained on; empty when they were trained on captions.
        strength: from 0 (the frozen model) to 1.
        temperature: what logits are divided by before the softmax.
        training: data, seed and scores of the training; free-form JSON.
    """

    state: Mapping[str, Tensor]
    settings: dict[str, Any]
    base: dict[str, Any]
    classes: tuple[str, ...] = ()
    strength: float = 1.0
    temperature: float = 1.0
    training: dict[str, Any] = field(default_factory=dict)


def save(folder: Path | str, saved: Saved, *, overwrite: bool = False) -> None:
    """Write a prompt folder atomically. Raises UserError when it exists, unless `overwrite`."""
    training = {name: value for name, value in saved.training.items() if name not in PASSING}
    about = {**vars(saved), "classes": list(saved.classes), "training": training}
    write(folder, "clip", about.pop("state"), about, overwrite=overwrite)


def load(folder: Path | str) -> Saved:
    """Read a prompt folder strictly. Raises UserError when a part is missing, malformed or does not fit the rest."""
    about, file = describe(folder, "clip"), Path(folder) / DESCRIPTION
    with strictly(file):
        saved = Saved(
            state={},
            settings=dict(about["settings"]),
            base={name: about["base"][name] for name in ("name", "pretrained", "fingerprint")},
            classes=tuple(map(str, about["classes"])),
            strength=about["strength"],
            temperature=float(about["temperature"]),
            training=about["training"],
        )
    if not 0 < saved.temperature < math.inf:
        raise UserError(f"{file}: expected a temperature above 0, got {saved.temperature}")
    return replace(saved, state=read(folder, about))

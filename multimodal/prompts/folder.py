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

HEAD = "head."  # before the names of a head's tensors; no prompter has such names
TEXTS = "teacher.texts"  # nor such a one
TAUGHT = ("name", "pretrained", "fingerprint", "dimension")  # what is said of a teacher
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
        labels: whole numbers that stand for the classes; empty where names do.
        head: what is said of the head beside its tensors, JSON; None where the prompt alone answers.
        head_state: the head's tensors by name, float32.
        teacher: of prompts that learned from another model: its "name", "pretrained", "fingerprint", "dimension".
        texts: (C, dimension), what the teacher's class vectors of the classes are.
    """

    state: Mapping[str, Tensor]
    settings: dict[str, Any]
    base: dict[str, Any]
    classes: tuple[str, ...] = ()
    strength: float = 1.0
    temperature: float = 1.0
    training: dict[str, Any] = field(default_factory=dict)
    labels: tuple[int, ...] = ()
    head: Mapping[str, Any] | None = None
    head_state: Mapping[str, Tensor] = field(default_factory=dict)
    teacher: Mapping[str, Any] | None = None
    texts: Tensor | None = None


def save(folder: Path | str, saved: Saved, *, overwrite: bool = False) -> None:
    """Write a prompt folder atomically.

    Raises:
        UserError: when it exists, unless `overwrite`.
    """
    training = {name: value for name, value in saved.training.items() if name not in PASSING}
    about = {**vars(saved), "classes": list(saved.classes), "training": training, "labels": list(saved.labels)}
    state = {**about.pop("state"), **{HEAD + name: value for name, value in about.pop("head_state").items()}}
    if (texts := about.pop("texts")) is not None:
        state[TEXTS] = texts
    for name in ("labels", "head", "teacher"):  # without them it is as it was before there were any
        if not about[name]:
            del about[name]
    write(folder, "clip", state, about, overwrite=overwrite)


def load(folder: Path | str) -> Saved:
    """Read a prompt folder strictly.

    Raises:
        UserError: when a part is missing, malformed or does not fit the rest.
    """
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
            labels=tuple(map(int, about.get("labels", ()))),
            head=None if about.get("head") is None else dict(about["head"]),
            teacher={name: about["teacher"][name] for name in TAUGHT} if about.get("teacher") else None,
        )
        if saved.labels and len(saved.labels) != len(saved.classes):
            raise ValueError(f"{len(saved.labels)} labels of {len(saved.classes)} classes")
    if not 0 < saved.temperature < math.inf:
        raise UserError(f"{file}: expected a temperature above 0, got {saved.temperature}")
    tensors = read(folder, about)
    mine = {} if saved.head is None else {name: tensors.pop(name) for name in list(tensors) if name.startswith(HEAD)}
    texts = None if saved.teacher is None else tensors.pop(TEXTS, None)
    head = {name.removeprefix(HEAD): value for name, value in mine.items()}
    return replace(saved, state=tensors, head_state=head, texts=texts)

"""What the folder of a text classifier holds; the format is that of all prompts, see `prompts.folder`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from retrieval_prompts.errors import UserError
from retrieval_prompts.prompts.encoders import KINDS
from retrieval_prompts.prompts.folder import DESCRIPTION, describe, read, strictly, write
from retrieval_prompts.prompts.strength import checked

QUERY, NAMES, WEIGHT, BIAS = "query", "names", "head.weight", "head.bias"


@dataclass(frozen=True)
class SavedLabels:
    """A classifier of texts.

    Args:
        tensors: "names" (C, dimension), what texts are compared with; "query" (layers, length, width), the prompt, and
            "head.weight" (C, dimension) with "head.bias" (C,), where they are used.
        classes: the labels, texts or numbers, sorted.
        names: what each of them is called.
        base: the frozen model; see `PromptFolder`.
        kind: of the prompt.
        strength: of the prompt, from 0 to 1.
        share: of the head, from 0 to 1.
        temperatures: what similarities with the names are divided by, and the mean with the head.
        training: settings, what was chosen and why; free-form JSON.
    """

    tensors: Mapping[str, Tensor]
    classes: list[Any]
    names: list[str]
    base: dict[str, Any]
    kind: str
    strength: float
    share: float
    temperatures: tuple[float, float]
    training: dict[str, Any]


def save_labels(folder: Path | str, saved: SavedLabels, *, overwrite: bool = False) -> None:
    """Write the folder atomically.

    Raises:
        UserError: when it exists, unless `overwrite`, and for other labels than texts and numbers.
    """
    for label in saved.classes:
        if not isinstance(label, str | int | float | bool):
            raise UserError(f"expected labels that are texts or numbers, to write them, got {type(label).__name__}")
    about = {**vars(saved), "temperatures": list(saved.temperatures)}
    write(folder, "labels", about.pop("tensors"), about, overwrite=overwrite)


def load_labels(folder: Path | str) -> SavedLabels:
    """Read the folder strictly.

    Raises:
        UserError: when a part is missing, malformed or does not fit the rest.
    """
    about, file = describe(folder, "labels"), Path(folder) / DESCRIPTION
    with strictly(file):
        classes, names = list(about["classes"]), [str(name) for name in about["names"]]
        first, second = (float(value) for value in about["temperatures"])
        kind, share = str(about["kind"]), float(about["share"])
        base = {**about["base"], "dimension": int(about["base"]["dimension"])}
    if len({type(label) for label in classes}) != 1 or not isinstance(classes[0], str | int | float | bool):
        raise UserError(f"{file}: expected labels that are all texts, or all numbers; train it again")
    if kind not in KINDS or not (0 < first < math.inf and 0 < second < math.inf and 0 <= share <= 1):
        raise UserError(
            f"{file}: expected a kind of {KINDS}, temperatures above 0, a share from 0 to 1; train it again"
        )
    tensors = read(folder, about)
    C = len(classes)
    rows = {NAMES: 2, QUERY: 3, WEIGHT: 2, BIAS: 1}
    wanted = {NAMES} | ({WEIGHT, BIAS} if share else set())
    odd = [name for name in tensors if tensors[name].ndim != rows.get(name)]
    if odd or not wanted <= tensors.keys() or len(names) != C or C < 2:
        raise UserError(f"{folder} does not hold a classifier of {C} labels; restore or train it again")
    if any(len(tensors[name]) != C for name in tensors.keys() - {QUERY}):
        raise UserError(f"{folder}: its parts are of other numbers of labels; restore or train it again")
    strength, temperatures = checked(about["strength"]), (first, second)
    return SavedLabels(tensors, classes, names, base, kind, strength, share, temperatures, about["training"])

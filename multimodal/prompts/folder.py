"""A prompt folder of CLIP: `prompt.safetensors` (what was trained) and `prompt.json` (what it is and belongs to).

Knows no method: `state` is a prompter's state_dict, whatever its names and shapes are.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from retrieval_prompts.errors import UserError
from retrieval_prompts.files import new_folder, read_json, write_bytes, write_json

FORMAT = "multimodal-prompts/1"
STATE, DESCRIPTION = "prompt.safetensors", "prompt.json"


@dataclass(frozen=True)
class Saved:
    """What a prompt folder holds.

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
    from safetensors.torch import save as serialise

    state = {name: value.detach().to("cpu", torch.float32).contiguous() for name, value in saved.state.items()}
    description = {
        "format": FORMAT,
        "settings": saved.settings,
        "base": saved.base,
        "classes": list(saved.classes),
        "strength": saved.strength,
        "temperature": saved.temperature,
        "state": _fingerprint(state),
        "training": saved.training,
    }
    with new_folder(Path(folder), holds=DESCRIPTION, overwrite=overwrite) as temporary:
        write_bytes(temporary / STATE, serialise(state))
        write_json(temporary / DESCRIPTION, description)


def load(folder: Path | str) -> Saved:
    """Read a prompt folder strictly. Raises UserError when a part is missing, malformed or does not fit the rest."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(folder)
    if not (path / DESCRIPTION).is_file() or not (path / STATE).is_file():
        raise UserError(f"{path} is no prompt folder: expected {STATE} and {DESCRIPTION} in it")
    description = read_json(path / DESCRIPTION)
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        came = description.get("format") if isinstance(description, dict) else type(description).__name__
        hint = "; prompts for texts are read by retrieval-prompts" if came == "retrieval-prompts/1" else ""
        raise UserError(f"{path / DESCRIPTION}: expected format {FORMAT!r}, got {came!r}{hint}")
    try:
        state = load_file(path / STATE)
        saved = Saved(
            state=state,
            settings=dict(description["settings"]),
            base={name: description["base"][name] for name in ("name", "pretrained", "fingerprint")},
            classes=tuple(map(str, description["classes"])),
            strength=float(description["strength"]),
            temperature=float(description["temperature"]),
            training=dict(description["training"]),
        )
        whole = description["state"] == _fingerprint(state)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} lacks or garbles a part ({error}); restore or train it again") from error
    if not whole:
        raise UserError(f"{path}: {STATE} and {DESCRIPTION} do not belong together; restore or train it again")
    if not 0 <= saved.strength <= 1 or not 0 < saved.temperature < math.inf:
        raise UserError(f"{path / DESCRIPTION}: expected a strength from 0 to 1 and a temperature above 0")
    return saved


def _fingerprint(state: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        digest.update(f"{name} {tuple(value.shape)} ".encode())
        digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()

"""A prompt folder: `prompt.safetensors` (the vectors) and `prompt.json` (what they are and what they belong to).

Knows no model: `BiEncoder.load` compares what is read here with the model at hand.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from retrieval_prompts.errors import UserError
from retrieval_prompts.files import new_folder, read_json, write_bytes, write_json
from retrieval_prompts.prompts.encoders import KINDS, SIDES, fingerprint

FORMAT = "retrieval-prompts/1"
VECTORS, DESCRIPTION = "prompt.safetensors", "prompt.json"
OWN = {VECTORS, DESCRIPTION, "README.md", "prompt_encoder.safetensors"}  # what is made here, in live.py and in hub.py


@dataclass(frozen=True)
class PromptFolder:
    """What a prompt folder holds.

    Args:
        kind: "input" or "prefix".
        vectors: side ("query", "document") -> (layers, length, width) in float32.
        base: the frozen model: "name", "fingerprint", "dimension", "width".
        strength: from 0 (the frozen model) to 1.
        training: settings, data and scores of the training; free-form JSON.
    """

    kind: str
    vectors: dict[str, Tensor]
    base: dict[str, Any]
    strength: float = 1.0
    training: dict[str, Any] = field(default_factory=dict)


def save_prompts(folder: Path | str, prompts: PromptFolder, *, overwrite: bool = False) -> None:
    """Write a prompt folder atomically.

    Raises UserError when it exists, unless `overwrite`, and even then where it holds anything else, such as the
    checkpoints of a trainer.
    """
    from safetensors.torch import save

    folder = Path(folder)
    if overwrite and folder.is_dir() and (others := {file.name for file in folder.iterdir()} - OWN):
        raise UserError(f"{folder} is not replaced, for it holds other things ({min(others)}); choose another name")

    vectors = {side: value.detach().to("cpu", torch.float32).contiguous() for side, value in prompts.vectors.items()}
    description = {
        "format": FORMAT,
        "kind": prompts.kind,
        "base": prompts.base,
        "strength": prompts.strength,
        "sides": {
            side: {
                "layers": value.shape[0],
                "length": value.shape[1],
                "width": value.shape[2],
                "fingerprint": fingerprint(prompts.kind, value),
            }
            for side, value in vectors.items()
        },
        "training": prompts.training,
    }
    with new_folder(Path(folder), holds=DESCRIPTION, overwrite=overwrite) as temporary:
        write_bytes(temporary / VECTORS, save(vectors))
        write_json(temporary / DESCRIPTION, description)


def read_description(folder: Path | str) -> dict[str, Any]:
    """The contents of `prompt.json`. Raises UserError when it is not that of a prompt folder of a known format."""
    path = _located(folder)
    if not (path / DESCRIPTION).is_file() or not (path / VECTORS).is_file():
        raise UserError(f"{path} is no prompt folder: expected {VECTORS} and {DESCRIPTION} in it")
    description = read_json(path / DESCRIPTION)
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        came = description.get("format") if isinstance(description, dict) else type(description).__name__
        other = isinstance(came, str) and came.startswith("multimodal-prompts/")
        hint = "these prompts are for CLIP: use multimodal-prompts" if other else "update retrieval-prompts"
        raise UserError(f"{path / DESCRIPTION}: expected format {FORMAT!r}, got {came!r}; {hint}")
    try:
        kind, base, strength = description["kind"], dict(description["base"]), float(description["strength"])
        base |= {
            "name": str(base["name"]),
            "fingerprint": str(base["fingerprint"]),
            "dimension": int(base["dimension"]),
        }
        stated = {side: str(part["fingerprint"]) for side, part in description["sides"].items()}
        training = dict(description.get("training") or {})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{path / DESCRIPTION} lacks or garbles a field ({error}); restore or train it again"
        ) from error
    if kind not in KINDS or not stated or not set(stated) <= set(SIDES) or not 0 <= strength <= 1:
        raise UserError(f"{path / DESCRIPTION}: expected a kind of {KINDS}, sides of {SIDES}, a strength from 0 to 1")
    return {**description, "base": base, "strength": strength, "training": training}


def load_prompts(folder: Path | str) -> PromptFolder:
    """Read a prompt folder, or "hf:user/name" on the hub, strictly.

    Raises UserError when a part is missing, malformed or does not fit the rest.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = _located(folder)
    description = read_description(path)
    try:
        vectors = load_file(path / VECTORS)
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path / VECTORS} cannot be read as safetensors ({error}); restore or train it again"
        ) from error
    kind, stated = description["kind"], {side: part["fingerprint"] for side, part in description["sides"].items()}
    if stated != {side: fingerprint(kind, value) for side, value in vectors.items()}:
        raise UserError(f"{path}: {VECTORS} and {DESCRIPTION} do not belong together; restore or train it again")
    vectors = {side: vectors[side] for side in stated}  # in the order in which they were saved
    return PromptFolder(kind, vectors, description["base"], description["strength"], description["training"])


def _located(folder: Path | str) -> Path:
    """A folder's path; of "hf:user/name" or "hf:user/name@revision" the path in the cache of the hub."""
    if not str(folder).startswith("hf:"):
        return Path(folder)
    from retrieval_prompts.interop.hub import fetch

    return fetch(str(folder).removeprefix("hf:"))

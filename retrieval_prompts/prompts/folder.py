"""A prompt folder: `prompt.safetensors` (what was learned) and `prompt.json` (what it is and what it belongs to).

One format for prompts of texts and of CLIP; the two older ones are still read. Knows no model: who loads prompts
compares what is read here with the model at hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from retrieval_prompts.errors import UserError
from retrieval_prompts.files import PROMPTS, check_seal, inside, new_folder, read_json, sealed, write_bytes, write_json
from retrieval_prompts.prompts.encoders import KINDS, SIDES, fingerprint
from retrieval_prompts.prompts.label import Label
from retrieval_prompts.prompts.mixture import COLDEST, HOTTEST, Mixture
from retrieval_prompts.prompts.strength import checked
from retrieval_prompts.towers.conventions import Conventions
from retrieval_prompts.towers.fingerprint import digest

FORMAT, OLD_TEXT, OLD_CLIP = "soft-prompts/2", "retrieval-prompts/1", "multimodal-prompts/1"
# And who reads them
TARGETS = {
    "text": ("texts", "retrieval-prompts"),
    "clip": ("CLIP", "multimodal-prompts"),
    "labels": ("labels of texts", "`retrieval-prompts classify` or PromptTextClassifier"),
    "writing": ("a language model", "--generator-prompt"),
}
VECTORS, DESCRIPTION = "prompt.safetensors", "prompt.json"
FEEDBACK, PARTS = "query.", ("map", "bias", "gate")  # what a prompt that reads documents has beside its vectors
KEYS = "query.keys"  # what a mixture has beside its prompts, which stand one behind the other
LARGEST = 1e6  # floor or weight of a mixture: beyond it float32 could make infinities of them
MOST = 4096  # vectors of a prompt: more than any text that it stands before


@dataclass(frozen=True)
class Feedback:
    """What a prompt that is made from the documents of a first search has beside its static vectors.

    Args:
        parts: see `feedback.FeedbackPrompt.parts`.
        bm25_weight: of BM25 in that search.
    """

    parts: dict[str, Tensor]
    bm25_weight: float


@dataclass(frozen=True)
class PromptFolder:
    """Prompts for a text tower.

    Args:
        kind: "input" or "prefix".
        vectors: side ("query", "document") -> (layers, length, width) in float32.
        base: the frozen model: "name", "fingerprint", "dimension", "width", and how it is used: "query_words",
            "document_words" and "similarity" (not in older ones).
        strength: from 0 (the frozen model) to 1.
        training: settings, data and scores of the training; free-form JSON.
        bm25_weight: of BM25 in hybrid search with these prompts, from 0 to 1; None where nothing is known of it.
        feedback: of a query prompt that is made from documents; its static vectors are in `vectors`.
        mixture: of query prompts that are weighed for each query; they are in `vectors` (see `MixturePrompt.flat`).
        label: what people call it.
    """

    kind: str
    vectors: dict[str, Tensor]
    base: dict[str, Any]
    strength: float = 1.0
    training: dict[str, Any] = field(default_factory=dict)
    bm25_weight: float | None = None
    feedback: Feedback | None = None
    mixture: Mixture | None = None
    label: Label = field(default_factory=Label)


def save_prompts(folder: Path | str, prompts: PromptFolder, *, overwrite: bool = False) -> None:
    """Write a prompt folder; see `write`."""
    about = {"kind": prompts.kind, "base": prompts.base, "strength": prompts.strength, "training": prompts.training}
    if prompts.bm25_weight is not None:
        about["bm25_weight"] = prompts.bm25_weight
    tensors = dict(prompts.vectors)
    if prompts.feedback is not None:
        about["feedback"] = {"bm25_weight": prompts.feedback.bm25_weight}
        tensors |= {f"{FEEDBACK}{name}": value for name, value in prompts.feedback.parts.items()}
    if prompts.mixture is not None:
        about["mixture"] = {name: value for name, value in vars(prompts.mixture).items() if name != "keys"}
        tensors[KEYS] = prompts.mixture.keys
    about |= prompts.label.to_json()
    write(folder, "text", tensors, about, overwrite=overwrite)


def read_description(folder: Path | str) -> dict[str, Any]:
    """The contents of `prompt.json`.

    Raises:
        UserError: when it is not that of prompts for texts, of a known format.
    """
    about, file = describe(folder, "text"), Path(folder) / DESCRIPTION
    with strictly(file):
        kind = about["kind"]
        about["base"]["dimension"] = int(about["base"]["dimension"])
        try:
            Conventions.recorded(about["base"])
        except UserError as error:
            raise UserError(f"{file}: {error}") from None
        if (weight := about.get("bm25_weight")) is not None and not 0 <= float(weight) <= 1:
            raise UserError(f"{file}: expected a bm25_weight from 0 to 1, got {weight}")
        if (reads := about.get("feedback")) is not None and not 0 <= float(reads["bm25_weight"]) <= 1:
            raise UserError(f"{file}: expected a bm25_weight of feedback from 0 to 1, got {reads['bm25_weight']}")
        Label.of(about, file)
        if (mixed := about.get("mixture")) is not None:
            _mixture(mixed, torch.empty(0))
    maps = {f"{FEEDBACK}{part}" for part in PARTS} if reads is not None else set()
    maps |= {KEYS} if mixed is not None else set()
    sides = set(about["tensors"]) - maps
    if kind not in KINDS or not sides or not sides <= set(SIDES) or not maps <= set(about["tensors"]):
        raise UserError(f"{file}: expected a kind of {KINDS}, and sides of {SIDES}")
    if maps and "query" not in sides:
        raise UserError(f"{file}: expected a query prompt beside what it reads of documents")
    for side in sides:
        if len(shape := about["tensors"][side]) != 3 or shape[1] > MOST:
            expected = f"(layers, length, width) with a length of at most {MOST:,}"
            raise UserError(f"{file}: expected a {side} prompt of shape {expected}, got {tuple(shape)}")
    return about


def load_prompts(folder: Path | str) -> PromptFolder:
    """Read a prompt folder strictly.

    Raises:
        UserError: when a part is missing, malformed or does not fit the rest.
    """
    about = read_description(folder)
    parts = (about["base"], about["strength"], about["training"], about.get("bm25_weight"))
    tensors, feedback = read(folder, about), None
    if (reads := about.get("feedback")) is not None:
        feedback = Feedback({part: tensors.pop(f"{FEEDBACK}{part}") for part in PARTS}, float(reads["bm25_weight"]))
        if [feedback.parts[part].ndim for part in PARTS] != [2, 1, 1] or len(feedback.parts["gate"]) > MOST:
            came = {part: tuple(value.shape) for part, value in feedback.parts.items()}
            raise UserError(f"{folder}: expected a map, a bias and a gate of at most {MOST:,}, got shapes {came}")
    mixture = None
    if (mixed := about.get("mixture")) is not None:
        mixture = _mixture(mixed, tensors.pop(KEYS))
        if mixture.keys.ndim != 2:
            raise UserError(f"{folder}: expected a key a prompt, got shape {tuple(mixture.keys.shape)}")
    return PromptFolder(about["kind"], tensors, *parts, feedback, mixture, Label.of(about, Path(folder) / DESCRIPTION))


def _mixture(about: Mapping[str, Any], keys: Tensor) -> Mixture:
    """What a description says of a mixture.

    Raises:
        ValueError: for numbers that cannot be.
    """
    floors, weights, strengths = (tuple(map(float, about[name])) for name in ("floors", "weights", "strengths"))
    found = Mixture(keys, floors, weights, strengths, float(about["temperature"]))
    sound = all(abs(number) <= LARGEST for number in (*floors, *weights)) and min(weights) >= 0
    if not sound or not COLDEST <= found.temperature <= HOTTEST:
        raise ValueError(f"mixture {dict(about)}")
    for strength in strengths:
        checked(strength)
    return found


def write(
    folder: Path | str, target: str, tensors: Mapping[str, Tensor], about: Mapping[str, Any], *, overwrite: bool
) -> None:
    """Write the folder of any prompts atomically.

    Args:
        target: one of TARGETS.
        tensors: what was learned, by name; kept in float32.
        about: "base" (with the "name" and "fingerprint" of the frozen model), "strength", "training", and what else
            such prompts have; their "kind" is in the fingerprint.

    Raises:
        UserError: when it exists, unless `overwrite`, and even then where it holds anything else, such as the
            checkpoints of a trainer.
    """
    from safetensors.torch import save

    folder = Path(folder)
    kept = {name: value.detach().to("cpu", torch.float32).contiguous() for name, value in tensors.items()}
    description = {
        "format": FORMAT,
        "for": target,
        **about,
        "tensors": {name: list(value.shape) for name, value in kept.items()},
        "fingerprint": digest(kept, before=about.get("kind", "")),
    }
    with new_folder(folder, holds=PROMPTS, overwrite=overwrite) as temporary:
        write_bytes(temporary / VECTORS, save(kept))
        write_json(temporary / DESCRIPTION, sealed(description))


def describe(folder: Path | str, target: str) -> dict[str, Any]:
    """The contents of `prompt.json`, in which what all prompts have is checked; an old format is put into the new one.

    Raises:
        UserError: when there is none, when it is for another target, and when a part is missing or malformed.
    """
    path = Path(folder)
    file = path / DESCRIPTION
    if not file.is_file() or not (path / VECTORS).is_file():
        raise UserError(f"{path} is not a prompt folder: expected {VECTORS} and {DESCRIPTION} in it")
    for name in (VECTORS, DESCRIPTION):
        inside(path, name)
    about = written = read_json(file)
    came = about.get("format") if isinstance(about, dict) else type(about).__name__
    if came not in (FORMAT, OLD_TEXT, OLD_CLIP):
        raise UserError(f"{file}: expected format {FORMAT!r}, got {came!r}; update {TARGETS[target][1]}")
    with strictly(file):
        if came != FORMAT:
            about = _renewed(about)
        what, reader = TARGETS[about["for"]]
        if about["for"] != target:
            raise UserError(f"{file}: expected prompts for {TARGETS[target][0]}, got prompts for {what}; use {reader}")
        base = dict(about["base"])
        base |= {name: str(base[name]) for name in ("name", "fingerprint")}
        strength, training, _ = float(about["strength"]), dict(about["training"]), about["fingerprint"]
        tensors = {name: [int(size) for size in shape] for name, shape in dict(about["tensors"]).items()}
        about = about | {"base": base, "strength": strength, "training": training, "tensors": tensors}
    try:
        checked(strength)
    except UserError as error:
        raise UserError(f"{file}: {error}") from None
    check_seal(file, written)  # older files have no digest
    return about


def read(folder: Path | str, about: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a folder that was described, in the order in which they were saved.

    Raises:
        UserError: when they cannot be read, or are not those that the description is of.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = Path(folder) / VECTORS
    try:
        tensors = load_file(file)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} cannot be read as safetensors ({error}); restore or train it again") from error
    found: Any
    if about["format"] == OLD_TEXT:
        found = {side: fingerprint(about["kind"], value) for side, value in tensors.items()}
    elif about["format"] == OLD_CLIP:
        found = digest(tensors, types=False)
    else:
        found = digest(tensors, before=about.get("kind", ""))
    shapes = {name: list(value.shape) for name, value in tensors.items()}
    if found != about["fingerprint"] or (about["format"] != OLD_CLIP and shapes != about["tensors"]):
        raise UserError(f"{folder}: {VECTORS} and {DESCRIPTION} do not belong together; restore or train it again")
    for name, value in tensors.items():
        if not (value.is_floating_point() and value.numel() and torch.isfinite(value).all()):
            kind = f"{value.dtype} {tuple(value.shape)}".removeprefix("torch.")
            raise UserError(f"{file}: expected finite numbers in float32, got {name!r} of {kind}; train it again")
    return {name: tensors[name] for name in about["tensors"] or tensors}


@contextmanager
def strictly(file: Path) -> Iterator[None]:
    """Raise a UserError of one line where a field of a description is missing or malformed."""
    try:
        yield
    except UserError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise UserError(f"{file} has a missing or damaged field ({error}); restore or train it again") from error


def _renewed(about: dict[str, Any]) -> dict[str, Any]:
    """A description of an old format, in the fields of the present one; its fingerprint is still the old one."""
    if about["format"] == OLD_CLIP:
        return {**about, "for": "clip", "tensors": {}, "fingerprint": about["state"]}
    sides = about["sides"]
    return {
        "training": {},
        **about,
        "for": "text",
        "tensors": {side: [part[name] for name in ("layers", "length", "width")] for side, part in sides.items()},
        "fingerprint": {side: part["fingerprint"] for side, part in sides.items()},
    }

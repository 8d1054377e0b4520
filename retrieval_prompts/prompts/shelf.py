"""A shelf of prompt folders: what each says of itself, and what two of them differ in. Knows no model and no data."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from retrieval_prompts.errors import UserError, first_line
from retrieval_prompts.files import read_json
from retrieval_prompts.prompts.folder import DESCRIPTION, OLD_CLIP, TARGETS, PromptFolder, describe, read_description
from retrieval_prompts.prompts.label import Label

HEADLINE = "ndcg@10"


@dataclass(frozen=True)
class Entry:
    """What a prompt folder says of itself.

    Args:
        name: its label's, else the folder's.
        kind: "input", "prefix"; of those that are not for retrieval what they are for, and their kind or method.
        lengths: side -> vectors; none for those.
        made: "feedback", "mixture" where each query gets a prompt of its own; "" for a constant one.
        tuned_on: the data set; "" where nothing says it.
        gains: split -> gain in nDCG@10 over the frozen model, a fraction, as tuning recorded it.
        written: the day on which the file was.
        problem: why it cannot be read; then all else is empty.
    """

    path: str
    name: str
    description: str = ""
    version: str = ""
    model: str = ""
    kind: str = ""
    lengths: dict[str, int] = field(default_factory=dict)
    made: str = ""
    strength: float = 1.0
    tuned_on: str = ""
    gains: dict[str, float] = field(default_factory=dict)
    written: str = ""
    problem: str = ""

    def to_json(self) -> dict[str, Any]:
        """Every field."""
        return asdict(self)


def shelf(folder: Path) -> list[Entry]:
    """The prompt folders in a folder, at any depth, or the folder itself; one that cannot be read says why.

    Links to folders are not followed.

    Raises:
        UserError: where there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; expected one that holds prompt folders")
    return [_entry(each) for each in _prompt_folders(folder)]


def differing(a: PromptFolder, b: PromptFolder) -> dict[str, tuple[Any, Any]]:
    """What is not the same in what two prompt folders are and how they were trained, without their vectors."""
    left, right = (_flat(each) for each in (a, b))
    names = dict.fromkeys([*left, *right])
    return {name: (left.get(name), right.get(name)) for name in names if left.get(name) != right.get(name)}


@dataclass(frozen=True)
class Distance:
    """How far the vectors of a side are apart.

    Args:
        lengths: of both.
        paired: whether vectors of one position are compared; else each of the shorter prompt with the most similar one.
        cosines: a vector each.
        distance: norm of the difference, over the mean norm of both; None where they are not paired.
    """

    lengths: tuple[int, int]
    paired: bool
    cosines: list[float]
    distance: float | None


def distances(a: PromptFolder, b: PromptFolder) -> dict[str, Distance]:
    """Side -> how far the vectors are apart, of the sides that both have; none for different kinds or widths."""
    found = {}
    for side in a.vectors.keys() & b.vectors.keys():
        left, right = a.vectors[side], b.vectors[side]
        if a.kind == b.kind and (left.shape[0], left.shape[2]) == (right.shape[0], right.shape[2]):
            found[side] = _distance(left, right)
    return {side: found[side] for side in a.vectors if side in found}


def same_data(a: PromptFolder, b: PromptFolder) -> bool | None:
    """Whether both were tuned on the same documents; None where one does not say."""
    corpora = [each.training.get("corpus") for each in (a, b)]
    return None if None in corpora else corpora[0] == corpora[1]


def _distance(left: Tensor, right: Tensor) -> Distance:
    rows = [each.transpose(0, 1).flatten(1) for each in (left, right)]  # (length, layers * width)
    lengths = (len(rows[0]), len(rows[1]))
    if lengths[0] == lengths[1]:
        cosines = cosine_similarity(rows[0], rows[1], dim=1)
        norms = [each.norm().item() for each in (left - right, left, right)]
        mean = (norms[1] + norms[2]) / 2
        return Distance(lengths, True, cosines.tolist(), norms[0] / mean if mean else 0.0)
    short, long = sorted(rows, key=len)
    nearest = (normalize(short, dim=1) @ normalize(long, dim=1).T).amax(dim=1)
    return Distance(lengths, False, nearest.tolist(), None)


def _prompt_folders(folder: Path) -> Iterator[Path]:
    if (folder / DESCRIPTION).is_file():
        yield folder
        return
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
            yield from _prompt_folders(folder / entry.name)


def _entry(folder: Path) -> Entry:
    try:
        written = read_json(folder / DESCRIPTION)
        said = written if isinstance(written, dict) else {}
        target = "clip" if said.get("format") == OLD_CLIP else str(said.get("for"))
        other = TARGETS[target][0] if target in TARGETS and target != "text" else None
        about = describe(folder, target) if other else read_description(folder)
        label = Label.of(about, folder / DESCRIPTION)
    except (UserError, OSError) as error:
        return Entry(str(folder), folder.resolve().name, problem=first_line(error))
    training = about["training"]
    day = datetime.fromtimestamp((folder / DESCRIPTION).stat().st_mtime, tz=UTC).date().isoformat()
    return Entry(
        path=str(folder),
        name=label.name or folder.resolve().name,
        description=label.description or "",
        version=label.version or "",
        model=about["base"]["name"],
        kind=f"{other}, {about.get('method', about.get('kind', ''))}".rstrip(", ") if other else about["kind"],
        lengths={} if other else {side: about["tensors"][side][1] for side in about["tensors"] if "." not in side},
        made=next((name for name in ("feedback", "mixture") if about.get(name) is not None), ""),
        strength=about["strength"],
        tuned_on=str(training.get("dataset") or ""),
        gains=_gains(training),
        written=day,
    )


def _gains(training: Mapping[str, Any]) -> dict[str, float]:
    """What tuning recorded, as far as it can be read."""
    found: dict[str, float] = {}
    try:
        systems = training["choice"]["systems"]
        found["dev"] = float(systems["tuned"]["all"]) - float(systems["frozen"]["all"])
    except (KeyError, TypeError, ValueError):
        pass
    results = training.get("results")
    for split, systems in results.items() if isinstance(results, Mapping) else ():
        try:
            found[str(split)] = float(systems["tuned"][HEADLINE]) - float(systems["frozen"][HEADLINE])
        except (KeyError, TypeError, ValueError):
            continue
    return found


def _flat(prompts: PromptFolder) -> dict[str, Any]:
    """What can differ, by name."""
    training = prompts.training
    settings = training.get("settings")
    known = {
        **{name: value for name, value in prompts.label.to_json().items()},
        "model": prompts.base["name"],
        "fingerprint of the model": prompts.base["fingerprint"][:12],
        **{name: prompts.base.get(name) for name in ("query_words", "document_words", "similarity")},
        "kind": prompts.kind,
        "sides": "+".join(prompts.vectors),
        "vectors": "+".join(str(value.shape[1]) for value in prompts.vectors.values()),
        "strength": prompts.strength,
        "bm25_weight": prompts.bm25_weight,
        "made from documents": prompts.feedback is not None,
        "mixture": prompts.mixture is not None,
        "tuned on": training.get("dataset"),
    }
    trained = {f"setting {name}": value for name, value in settings.items()} if isinstance(settings, Mapping) else {}
    return known | trained

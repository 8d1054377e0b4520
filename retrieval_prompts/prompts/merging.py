"""Several prompt folders of one frozen model -> one: their average, one behind the other, or a mixture a query.

Knows no model and no data: the keys of a mixture are made by who has the training queries.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from retrieval_prompts.errors import UserError
from retrieval_prompts.prompts.encoders import fingerprint
from retrieval_prompts.prompts.folder import PromptFolder
from retrieval_prompts.prompts.mixture import COLDEST, HOTTEST, TEMPERATURE, Mixture
from retrieval_prompts.prompts.settings import spoken

METHODS = ("average", "concatenation", "mixture")


@dataclass(frozen=True)
class Key:
    """What a prompt's training queries are like: the direction of their mean (dimension,), and the floor (see
    `mixture`)."""

    direction: Tensor
    floor: float


@dataclass(frozen=True)
class Source:
    """Prompts that are merged. `name`: what they are called, for messages and the record; `key`: for a mixture."""

    name: str
    prompts: PromptFolder
    key: Key | None = None


def merge(
    sources: Sequence[Source],
    method: str = "average",
    weights: Sequence[float] | None = None,
    *,
    temperature: float = TEMPERATURE,
) -> PromptFolder:
    """One prompt folder of several.

    A prompt of strength s counts as s times its weight, and what is left of 1 is the frozen model's.

    Args:
        method: "average" (of one length), "concatenation" (lengths add up) or "mixture" (of one length, each with a
            key; see `mixture`).
        weights: a number of 0 or more each; None: all the same. An average needs one above 0; a concatenation has none.

    Raises:
        UserError: for prompts that do not fit together, naming them.
    """
    check(sources, method, weights)
    given = [1.0] * len(sources) if weights is None else [float(weight) for weight in weights]
    whole = sum(given) or 1.0
    shares = [weight / whole for weight in given]
    folders = [source.prompts for source in sources]
    counts = [share * folder.strength for share, folder in zip(shares, folders, strict=True)]
    strength, mixture = min(math.fsum(counts), 1.0), None
    if method == "mixture":
        strength, mixture = 1.0, _mixture(sources, [share * len(shares) for share in shares], temperature)
        vectors = {"query": torch.cat([folder.vectors["query"] for folder in folders], dim=1)}
    elif method == "concatenation":
        vectors = {side: torch.cat([folder.vectors[side] for folder in folders], dim=1) for side in folders[0].vectors}
    else:
        if strength == 0:
            raise UserError(
                "all of these prompts are the frozen model (strength or weight 0); there is nothing to merge"
            )
        vectors = {side: _average([folder.vectors[side] for folder in folders], counts) for side in folders[0].vectors}
    record: dict[str, Any] = {"dataset": " + ".join(dict.fromkeys(_tuned_on(source) for source in sources))}
    record |= {"merged": {"method": method, "of": [_record(*each) for each in zip(sources, shares, strict=True)]}}
    bm25 = [folder.bm25_weight for folder in folders]
    known = [share * weight for share, weight in zip(shares, bm25, strict=True) if weight is not None]
    beside = math.fsum(known) if len(known) == len(bm25) and any(shares) else None
    return PromptFolder(folders[0].kind, vectors, folders[0].base, strength, record, beside, None, mixture)


def check(sources: Sequence[Source], method: str, weights: Sequence[float] | None = None) -> None:
    """Raises UserError for prompts that do not fit together, and for what is no method and no weights."""
    if method not in METHODS:
        raise UserError(f"--method must be {spoken(METHODS)}, got {method!r}")
    if len(sources) < 2:
        raise UserError(f"expected two prompt folders or more, got {len(sources)}")
    if weights is not None:
        if method == "concatenation":
            raise UserError("--weights is used with --method average or mixture, not with concatenation")
        if len(weights) != len(sources):
            raise UserError(f"--weights: expected one for each of {len(sources)} prompt folders, got {len(weights)}")
        if not all(math.isfinite(weight) and weight >= 0 for weight in weights):
            raise UserError(f"--weights must be numbers of 0 or more, got {', '.join(f'{each:g}' for each in weights)}")
    first = sources[0]
    for source in sources:
        if source.prompts.feedback is not None or source.prompts.mixture is not None:
            what = "read documents" if source.prompts.feedback is not None else "are a mixture already"
            raise UserError(f"{source.name}: its prompts {what}, so there are no fixed vectors to merge; leave it out")
        if method == "mixture" and set(source.prompts.vectors) != {"query"}:
            raise UserError(
                f"{source.name} has a document prompt, and documents have no query to choose by; leave it out"
            )
    for source in sources[1:]:
        _check_pair(first, source, method)


def _check_pair(first: Source, other: Source, method: str) -> None:
    base, own = first.prompts.base, other.prompts.base
    both = f"{first.name} and {other.name}"
    if base["fingerprint"] != own["fingerprint"]:
        models = [f"{each['name']} ({each['fingerprint'][:12]})" for each in (base, own)]
        raise UserError(f"{both} belong to different models, {' and '.join(models)}; merge prompts of one model")
    if first.prompts.kind != other.prompts.kind:
        raise UserError(f"{both} are of different kinds, {first.prompts.kind} and {other.prompts.kind}; merge one kind")
    if set(first.prompts.vectors) != set(other.prompts.vectors):
        sides = ["+".join(each.prompts.vectors) for each in (first, other)]
        raise UserError(f"{both} are for different sides, {' and '.join(sides)}; merge prompts of the same sides")
    lengths = [[value.shape[1] for value in each.prompts.vectors.values()] for each in (first, other)]
    if method != "concatenation" and lengths[0] != lengths[1]:
        said = " and ".join("+".join(map(str, each)) for each in lengths)
        raise UserError(f"{both} have lengths {said}, and --method {method} needs one; use --method concatenation")


def _average(vectors: Sequence[Tensor], counts: Sequence[float]) -> Tensor:
    """The mean by counts; one alone bit for bit."""
    used = [(value, count) for value, count in zip(vectors, counts, strict=True) if count > 0]
    if len(used) == 1:
        return used[0][0]
    total = math.fsum(count for _, count in used)
    return torch.stack([value.double() * (count / total) for value, count in used]).sum(dim=0).float()


def _mixture(sources: Sequence[Source], weights: Sequence[float], temperature: float) -> Mixture:
    keys = [source.key for source in sources if source.key is not None]
    if len(keys) < len(sources):
        raise UserError("a mixture chooses by the training queries of each prompt; pass --data once for each folder")
    if not COLDEST <= temperature <= HOTTEST:
        raise UserError(f"--temperature must be from {COLDEST:g} to {HOTTEST:g}, got {temperature:g}")
    floors = tuple(key.floor for key in keys)
    strengths = tuple(source.prompts.strength for source in sources)
    return Mixture(torch.stack([key.direction for key in keys]), floors, tuple(weights), strengths, temperature)


def _tuned_on(source: Source) -> str:
    return str(source.prompts.training.get("dataset") or source.name)


def _record(source: Source, weight: float) -> dict[str, Any]:
    """What is kept of one of several."""
    prompts = source.prompts
    return {
        "name": prompts.label.name or source.name,
        "version": prompts.label.version,
        "dataset": prompts.training.get("dataset"),
        "corpus": prompts.training.get("corpus"),
        "weight": weight,
        "strength": prompts.strength,
        "vectors": {side: fingerprint(prompts.kind, value) for side, value in prompts.vectors.items()},
    }

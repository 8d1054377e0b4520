"""Heads over frozen features: few-shot classifiers that start from the classes' text vectors, one short file a paper.

All of them have one form, `head.Head`, so whatever is fitted is saved, used and exported in the same way. They know no
model and no pictures: features and texts are given.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast

from retrieval_prompts.errors import UserError

if TYPE_CHECKING:
    from multimodal.heads.head import Head, Shots

HEADS = {
    "probe": "logistic",
    "tip-adapter": "tip_adapter",
    "tip-adapter-f": "tip_adapter_f",
    "lp++": "lp_plus",
    "clap": "clap",
    "gda": "gda",
    "proker": "proker",
    "two-stage": "two_stage",
}  # name -> file


class HeadFile(Protocol):
    """What multimodal/heads/<file>.py holds."""

    GRID: Sequence[Mapping[str, Any]]  # options of `fit` to choose from; the first where nothing can be held out
    SHOTS: int  # that the best-served class must have
    TEXT: bool  # its logits are those of the texts and something added

    def fit(self, shots: Shots, **options: Any) -> Head: ...


def options_of(name: str, shots: Shots, *, published: bool) -> Sequence[Mapping[str, Any]]:
    """What is chosen from: GRID, or what the head's file has as `published`, where it has that."""
    file = head_file(name)
    own = getattr(file, "published", None)
    return (own(shots),) if published and own is not None else file.GRID


def head_file(name: str) -> HeadFile:
    """Raises UserError for a name that is not in HEADS."""
    if name not in HEADS:
        raise UserError(f"there is no head {name!r}; the heads are {', '.join(HEADS)}")
    return cast(HeadFile, importlib.import_module(f"multimodal.heads.{HEADS[name]}"))

"""Texts with labels from a table: CSV, TSV, JSON lines, Parquet and what else tables are read from."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retrieval_prompts.data.sources import columns as named
from retrieval_prompts.data.sources.left_out import LeftOut
from retrieval_prompts.data.sources.rows import open_table
from retrieval_prompts.errors import DataWarning, UserError

LABELLED: dict[str, tuple[str, ...]] = {
    "label": ("label", "labels", "class", "category", "intent", "sentiment", "topic", "target", "stance", "y"),
    "text": ("text", "sentence", "content", "utterance", "review", "tweet", "body", "document", "query", "question"),
}


@dataclass(frozen=True)
class LabelledTexts:
    """Texts in their order.

    Args:
        texts: none is empty.
        labels: of each text, "" where it has none; empty where the table has no labels.
        what: how the table was understood, in a line.
    """

    texts: list[str]
    labels: list[str]
    what: str

    def take(self, positions: Sequence[int]) -> LabelledTexts:
        """Some of them."""
        return LabelledTexts([self.texts[at] for at in positions], [self.labels[at] for at in positions], self.what)


def read_labelled(
    path: Path, text: str | None = None, label: str | None = None, *, wanted: bool = True
) -> LabelledTexts:
    """The texts of a table, and their labels.

    Args:
        text, label: the columns; None: by their names, the text else by its length.
        wanted: without labels nothing can be done. Else they are read where there are some.

    Rows without a text, and where labels are wanted without a label, are left out, counted and named in a DataWarning.

    Raises:
        UserError: for a file that is no table, for columns that it does not have, and where no text is left.
    """
    left = LeftOut()
    table = open_table(path, lambda name: bool(named.by_name([name], LABELLED)) or name in (text, label), left)
    for option, given in (("--text", text), ("--label", label)):
        named.check(table, [given] if given else [], option)
    found = named.by_name([name for name in table.columns if name not in (text, label)], LABELLED)
    label = label or found.get("label")
    text = text or found.get("text") or named.longest_text(table, [label] if label else [])
    if text is None:
        raise UserError(f"{path}: no column looks like a text, of {', '.join(table.columns)}; name it with --text")
    if label is None and wanted:
        raise UserError(f"{path}: no column looks like a label, of {', '.join(table.columns)}; name it with --label")
    texts, labels = [], []
    for number, values in table.read([text] if label is None else [text, label]):
        words, own = named.as_text(values[0]), named.as_text(values[-1]).strip()
        if not words.strip():
            left.note("rows without a text", f"{path}:{number}")
        elif wanted and not own:
            left.note("rows without a label", f"{path}:{number}")
        else:
            texts.append(words)
            labels.append(own)
    if left.counts:
        warnings.warn(f"left out: {'; '.join(left.lines())}", DataWarning, stacklevel=2)
    if not texts:
        raise UserError(f"{path} has no row with a text{' and a label' if wanted else ''}")
    what = f"{path}: {len(texts):,} texts ({text!r})" + (f", labels {label!r}" if label else "")
    return LabelledTexts(texts, labels if label is not None else [], what)


def few_shot(labels: Sequence[str], shots: int, seed: int) -> list[int]:
    """The positions of so many examples of each label, or of all where it has fewer, in their order."""
    order = np.random.default_rng(seed).permutation(len(labels))
    count: dict[str, int] = {}
    chosen = []
    for at in order.tolist():
        if count.get(labels[at], 0) < shots:
            count[labels[at]] = count.get(labels[at], 0) + 1
            chosen.append(at)
    return sorted(chosen)


def held_out(labels: Sequence[str], seed: int, share: float = 0.2) -> tuple[list[int], list[int]]:
    """Positions to train on, and positions to test on: of each label a share, one at least where it has two."""
    order = np.random.default_rng(seed).permutation(len(labels))
    by_label: dict[str, list[int]] = {}
    for at in order.tolist():
        by_label.setdefault(labels[at], []).append(at)
    test = {at for own in by_label.values() for at in own[: min(len(own) - 1, max(1, round(share * len(own))))]}
    return [at for at in range(len(labels)) if at not in test], sorted(test)

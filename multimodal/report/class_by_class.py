"""A classification class by class: what is taken for what, how good each class is, and the pictures answered wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from multimodal.data.pictures import short_names
from multimodal.data.templates import spoken
from multimodal.evaluation.confusion import Confusion, listed
from multimodal.experiments.which_system import CALLED
from retrieval_prompts.errors import few
from retrieval_prompts.evaluation.words import points
from retrieval_prompts.report.content import Block, Figures, Matrix, Shown

if TYPE_CHECKING:
    from multimodal.data.pictures import Picture
    from multimodal.evaluation.rankings import Rankings

DRAWN = 16  # classes in the picture of a matrix
ROWS = 200  # classes in the table
WRONG = 12  # pictures
PAIRS = 3  # mistakes in a sentence
Show = Callable[["Picture | None"], str]  # its data: address, or nothing
PROBABILITIES = ("linear-probe",)  # its scores are probabilities, those of others logits


def confusion_of(rankings: Rankings, system: str) -> Confusion:
    """What a system took for what: its first class of each picture.

    Args:
        system: as in the rankings, with its seed where there are several.
    """
    classes = [document.text for document in rankings.documents]
    right = np.array([own[0] for own in rankings.right], dtype=np.int64)
    return Confusion(classes, right, rankings.systems[system].positions[:, 0].astype(np.int64))


def class_blocks(
    rankings: Rankings, system: str, title: str, show: Show, labelled: Mapping[str, int], next_labels: str
) -> list[Block]:
    """The parts of a section about single classes.

    Args:
        system: as in the rankings.
        title: the system.
        show: gives the data: address of a picture.
        labelled: class -> pictures that there are to learn from.
        next_labels: what to label next, in a sentence; may be empty.
    """
    found = confusion_of(rankings, system)
    names = [spoken(name) for name in found.classes]
    pairs = [f"{names[right]} for {names[answer]} ({times:,})" for right, answer, times in found.pairs(PAIRS)]
    said = f"Taken most often: {listed(pairs)}" if pairs else "No picture was answered wrong"
    at = found.most_confused(DRAWN)
    drawn = "" if len(at) == len(names) else f", the {len(at)} most confused of {len(names):,} classes"
    shown = Matrix(
        f"Rows: what a picture shows; columns: what was answered{drawn}",
        [names[each] for each in at],
        found.counts[np.ix_(at, at)].tolist(),
        found.totals[at].tolist(),
        f"{said}.",
    )
    sentences = [
        f"These are the answers of {CALLED.get(title, title)}. {said}.",
        *([next_labels] if next_labels else []),
    ]
    if empty := [name for name, total in zip(names, found.totals, strict=True) if not total]:
        sentences.append(f"Without a picture here, so nothing is known of them: {few(empty)}.")
    block = Block("Class by class", sentences, [shown] if at else [], [_table(found, names, labelled)])
    wrong = _wrong(found, rankings, system, show)
    return [*([wrong] if wrong is not None else []), block]


def _table(found: Confusion, names: list[str], labelled: Mapping[str, int]) -> Figures:
    """A row a class, those with the lowest accuracy first."""
    share = found.hits / np.maximum(1, found.totals)
    order = sorted(np.flatnonzero(found.totals).tolist(), key=lambda at: (share[at], -found.totals[at]))
    rows: list[list[str]] = []
    for at in order[:ROWS]:
        other = found.taken_for(at)
        row = [names[at], points(float(share[at])), f"{found.hits[at]:,}", f"{found.totals[at]:,}"]
        row += [str(labelled.get(found.classes[at], "–"))] if labelled else []
        rows.append([*row, "–" if other is None else f"{names[other[0]]} ({other[1]:,})"])
    header = ["Class", "accuracy", "right", "pictures", *(["labelled"] if labelled else []), "taken for most often"]
    more = "" if len(order) <= ROWS else f"; the {ROWS} lowest of {len(order):,}"
    return Figures(f"Accuracy of each class × 100, the lowest first{more}", header, rows, [len(header) - 1])


def _wrong(found: Confusion, rankings: Rankings, system: str, show: Show) -> Block | None:
    """The pictures answered wrong, the surest answers first."""
    best = rankings.systems[system]
    scores = np.where(np.isfinite(best.scores), best.scores.astype(np.float64), -np.inf)
    if system.rpartition("-")[0] not in PROBABILITIES and system not in PROBABILITIES:
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        scores /= scores.sum(axis=1, keepdims=True)
    rows = np.flatnonzero(found.answers != found.right)
    rows = rows[np.argsort(-scores[rows, 0], kind="stable")]
    if not len(rows):
        return None
    short = short_names([query.text for query in rankings.queries])
    pictures = [
        Shown(
            show(rankings.queries[row].picture),
            short[row],
            rankings.queries[row].text,
            f"shows {spoken(found.classes[found.right[row]])}; answered {spoken(found.classes[found.answers[row]])},"
            f" {points(float(scores[row, 0]))} % sure",
            False,
        )
        for row in rows[:WRONG].tolist()
    ]
    many = f"{len(rows):,} of {len(found.right):,} pictures" if len(found.right) > 1 else "the picture"
    shown = "" if len(rows) <= WRONG else f"; the {WRONG} of which it was surest"
    return Block("Answered wrong", [f"{many}{shown}"], pictures=pictures)

"""What a report says, as plain data: sections, queries, documents, curves. Knows no model, no file and no HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Item:
    """A document, a picture or a class: what can be found. `picture` is a data: address, or empty."""

    title: str = ""
    text: str = ""
    picture: str = ""


@dataclass(frozen=True)
class Query:
    """One query (a text, or a picture to classify) and what every system found for it.

    Args:
        relevant: document id -> grade, above 0.
        rankings: system -> its best hits (document id, score), best first. Ten are shown; more of them say where a
            relevant document stands that is not among these.
        scores: system -> value of the section's metric, from 0 to 1.
        picture: a data: address, or empty.
    """

    id: str
    text: str
    relevant: Mapping[str, int]
    rankings: Mapping[str, Sequence[tuple[str, float]]]
    scores: Mapping[str, float]
    picture: str = ""


@dataclass(frozen=True)
class Curve:
    """One line of a plot: points (x, y) in the order of x."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Section:
    """One data set, one direction of image-text retrieval, or one classification protocol.

    Args:
        metric: shown for each query, for example "ndcg@10".
        systems: system -> metric -> mean over the queries, as a fraction.
        tests: "tuned_vs_frozen" -> `evaluate.Comparison.as_dict()`, perhaps with "p_adjusted" and "effect_size".
        documents: document id -> what is shown of it; one that is missing here is shown by its id.
        facts: short remarks, for example "5,183 documents".
        loss, dev: training curves; x is the step.
        strength: x is the strength of the prompt from 0 to 1, y the metric on the queries that chose it (dev).
        words: side -> for each prompt vector, or layer, the nearest words of the vocabulary (word, cosine).
        baseline, system: the pair whose per-query changes are shown first.
        advice: what to use, in a sentence; it comes first.
    """

    name: str
    split: str
    metric: str
    systems: Mapping[str, Mapping[str, float]]
    tests: Mapping[str, Mapping[str, Any]]
    queries: Sequence[Query]
    documents: Mapping[str, Item]
    facts: Sequence[str] = ()
    loss: Sequence[Curve] = ()
    dev: Sequence[Curve] = ()
    strength: Sequence[Curve] = ()
    trade: Sequence[Curve] = ()
    words: Mapping[str, Sequence[Sequence[tuple[str, float]]]] = field(default_factory=dict)
    baseline: str = "frozen"
    system: str = "tuned"
    advice: str = ""


@dataclass(frozen=True)
class Report:
    """The whole page. `averages`: over several data sets, system -> metric -> mean."""

    title: str
    sections: Sequence[Section]
    facts: Sequence[str] = ()
    notes: Sequence[str] = ()
    averages: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

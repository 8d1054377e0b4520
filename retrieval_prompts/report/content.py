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
class Lines:
    """A plot of lines over common axes; `percent`: y is a fraction."""

    title: str
    curves: Sequence[Curve]
    x: str
    y: str
    percent: bool = False


@dataclass(frozen=True)
class Heat:
    """Fractions in rows and columns, shown as shades: `values` of each row."""

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    values: Sequence[Sequence[float]]


@dataclass(frozen=True)
class Matrix:
    """How often what stands in a row was taken for what stands in a column, as shades with their counts.

    Args:
        names: of rows and columns alike.
        totals: of each row, also where not all columns are shown.
        said: the picture in words.
    """

    title: str
    names: Sequence[str]
    counts: Sequence[Sequence[int]]
    totals: Sequence[int]
    said: str


@dataclass(frozen=True)
class Shown:
    """A picture with what was answered.

    Args:
        picture: a data: address, or empty.
        title, place: its name, short and whole.
        right: whether the answer is.
    """

    picture: str
    title: str
    place: str
    text: str
    right: bool


@dataclass(frozen=True)
class Span:
    """A confidence interval, in a cell of its own."""

    low: float
    middle: float
    high: float


@dataclass(frozen=True)
class Figures:
    """A table: the first cell of a row names it. `texts`: columns, from 0, that hold words and not numbers."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str | Span]]
    texts: Sequence[int] = ()


@dataclass(frozen=True)
class Block:
    """A part of a section with a title of its own."""

    title: str
    sentences: Sequence[str] = ()
    plots: Sequence[Lines | Heat | Matrix] = ()
    tables: Sequence[Figures] = ()
    pictures: Sequence[Shown] = ()


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
        random_words: side -> the same of some random vectors.
        words_said: side -> what the words are worth, in a sentence.
        baseline, system: the pair whose per-query changes are shown first.
        advice: what to use, in a sentence; it comes first.
        sentences: in place of those that are made of the tests, the most important first.
        blocks: what else there is to see, before the queries.
        unit: what one query and several are called.
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
    random_words: Mapping[str, Sequence[Sequence[tuple[str, float]]]] = field(default_factory=dict)
    words_said: Mapping[str, str] = field(default_factory=dict)
    baseline: str = "frozen"
    system: str = "tuned"
    advice: str = ""
    sentences: Sequence[str] = ()
    blocks: Sequence[Block] = ()
    unit: tuple[str, str] = ("query", "queries")


@dataclass(frozen=True)
class Report:
    """The whole page.

    Args:
        averages: over several data sets, system -> metric -> mean.
        verdict: whether to use it, in a plain sentence, and how sure that is, in more of them: the page's first screen.
        about: how all came about, in rows of a name and a text.
    """

    title: str
    sections: Sequence[Section]
    facts: Sequence[str] = ()
    notes: Sequence[str] = ()
    averages: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    verdict: Sequence[str] = ()
    about: Sequence[tuple[str, str]] = ()

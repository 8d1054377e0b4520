"""What to use on a corpus, in a sentence: what it gains, where, how sure that is, and what it costs a query."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from retrieval_prompts.evaluation.significance import ALPHA, Comparison
from retrieval_prompts.evaluation.words import count, interval, metric_name, p_text, points

ADVICE = {
    "frozen": "Use the frozen model as it is",
    "frozen+bm25": "Use the frozen model with BM25, without prompts",
    "tuned": "Use the prompts, without BM25",
    "tuned+bm25": "Use the prompts with BM25",
    "bm25": "Use BM25 alone",
}
RIVALS = {"frozen": "the frozen model", "frozen+bm25": "the frozen model with BM25", "bm25": "BM25"}


@dataclass(frozen=True)
class Evidence:
    """A paired test of a system, and what it was made on.

    Args:
        test: of the system against the rival; None where nothing was compared.
        on: the queries: "test", "test, unseen documents", "cross-validation" ..., or why there are none.
        rival: the system without prompts that it is tested against.
    """

    test: Comparison | None = None
    on: str = ""
    rival: str = "frozen"


@dataclass(frozen=True)
class Recommendation:
    """What to use.

    Args:
        system: "frozen", "frozen+bm25", "tuned", "tuned+bm25" or "bm25".
        sentence: the advice in words.
        strength, bm25_weight: with which it is used; the weight is None where BM25 has no part.
        gain: it against the frozen model, on the queries of `basis`; None for the frozen model itself.
        basis: the queries that the gain was measured on: "test", "test, unseen documents", "cross-validation" ...
        harmful: the gain is significantly below zero, be it that against `rival`: it must not be used.
        milliseconds: system -> of a query, its encoding included, one after another; of it and of the frozen model.
        cost: the words for it.
    """

    system: str
    sentence: str
    strength: float
    bm25_weight: float | None
    gain: Comparison | None
    basis: str
    harmful: bool
    milliseconds: dict[str, float]
    cost: str = ""

    def without_times(self) -> Recommendation:
        """What does not differ from run to run."""
        sentence = self.sentence.replace(f"; {self.cost}", "", 1) if self.cost else self.sentence
        return replace(self, milliseconds={}, cost="", sentence=sentence)

    def to_json(self) -> dict[str, Any]:
        """Every field by its name; the gain as `Comparison.as_dict` has it."""
        return {**vars(self), "gain": self.gain.as_dict() if self.gain is not None else None}


def recommend(
    system: str,
    *,
    strength: float,
    bm25_weight: float | None,
    gain: Evidence,
    milliseconds: Mapping[str, float],
    prompts: Evidence = Evidence(),
) -> Recommendation:
    """Put the choice of a system into words.

    Args:
        gain: the system against the frozen model, or where it loses, against what it loses to.
        prompts: the better row with prompts against the better row without, on the queries that chose between them.
    """
    with_words = "bm25" in system
    weight = bm25_weight if with_words else None
    shown = [f"strength {strength:g}"] if "tuned" in system and strength < 1 else []
    if weight is not None and system != "bm25":
        shown.append(f"weight {weight:g}")
    how = ", ".join(shown)
    harmful = gain.test is not None and gain.test.difference < 0 and gain.test.p_value < ALPHA
    cost = "" if harmful else _cost(system, milliseconds)
    if harmful:
        sentence = f"Do not use {'these prompts' if 'tuned' in system else 'BM25 here'}: {_gained(gain)}."
    else:
        reasons = "; ".join(part for part in (_gained(gain), cost, _added(prompts)) if part)
        sentence = f"{ADVICE[system]}{f' ({how})' if how else ''}{f': {reasons}' if reasons else ''}."
    return Recommendation(system, sentence, strength, weight, gain.test, gain.on, harmful, dict(milliseconds), cost)


def _gained(gain: Evidence) -> str:
    test = gain.test
    if test is None:
        return ""
    sure = f"{interval(test)}, {p_text(test.p_value)}"
    on = f"on {count(test.queries, 'query', 'queries')} ({gain.on})"
    against = RIVALS[gain.rival]
    text = f"{points(test.difference, signed=True)} points of {metric_name(test.metric)} against {against} {on}"
    return f"{text}, {sure}" if test.p_value < ALPHA else f"{text}, which may be noise ({sure})"


def _cost(system: str, milliseconds: Mapping[str, float]) -> str:
    if system not in milliseconds or "frozen" not in milliseconds or system == "frozen":
        return ""
    return f"{milliseconds[system]:.1f} ms a query instead of {milliseconds['frozen']:.1f}"


def _added(prompts: Evidence) -> str:
    """What prompts add, where it was tested; else why it was not."""
    test = prompts.test
    if test is None:
        return prompts.on
    on = f"on {count(test.queries, 'query', 'queries')} ({prompts.on})"
    text = f"{points(test.difference, signed=True)} points for prompts {on}"
    sure = f"{interval(test)}, {p_text(test.p_value)}"
    if test.difference > 0 and test.p_value < ALPHA:
        return f"{text}, {sure}"
    return f"prompts were not shown to add to it: {text}, {sure}"

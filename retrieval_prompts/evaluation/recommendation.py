"""What to use on a corpus, in a sentence: what it gains, where, how sure that is, and what it costs a query."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from retrieval_prompts.evaluation.significance import ALPHA, Comparison
from retrieval_prompts.evaluation.words import about, count, interval, metric_name, p_text, points

ADVICE = {
    "frozen": "Use the frozen model as it is",
    "frozen+bm25": "Use the frozen model with BM25, without prompts",
    "tuned": "Use the prompts, without BM25",
    "tuned+bm25": "Use the prompts with BM25",
    "bm25": "Use BM25 alone",
}
WITH_PROMPTS = {  # the same as an answer to a question
    "frozen": "no. Use the model as it is",
    "frozen+bm25": "no. Use the model without them, with BM25",
    "tuned": "yes, without BM25",
    "tuned+bm25": "yes, but only with BM25",
    "bm25": "no. Use BM25 alone",
}
WITHOUT = {"frozen": "yes, as it is", "frozen+bm25": "yes, but only with BM25", "bm25": "no. Use BM25 alone"}
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
        verdict: yes or no, in a plain sentence; sure: how sure that is, in others, for those who read no statistics.
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
    verdict: str = ""
    sure: tuple[str, ...] = ()

    def without_times(self) -> Recommendation:
        """What does not differ from run to run."""
        sentence = self.sentence.replace(f"; {self.cost}", "", 1) if self.cost else self.sentence
        return replace(self, milliseconds={}, cost="", sentence=sentence)

    def to_json(self) -> dict[str, Any]:
        """Every field by its name; the gain as `Comparison.as_dict` has it."""
        gain = self.gain.as_dict() if self.gain is not None else None
        return {**vars(self), "gain": gain, "sure": list(self.sure)}


def recommend(
    system: str,
    *,
    strength: float,
    bm25_weight: float | None,
    gain: Evidence,
    milliseconds: Mapping[str, float],
    prompts: Evidence = Evidence(),
    tried: bool = True,
) -> Recommendation:
    """Put the choice of a system into words.

    Args:
        gain: the system against the frozen model, or where it loses, against what it loses to.
        prompts: the better row with prompts against the better row without, on the queries that chose between them.
        tried: whether there are prompts at all.
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
    return Recommendation(
        system,
        sentence,
        strength,
        weight,
        gain.test,
        gain.on,
        harmful,
        dict(milliseconds),
        cost,
        verdict=_verdict(system, harmful, tried),
        sure=tuple(filter(None, _sure(system, gain, prompts, tried))),
    )


def _verdict(system: str, harmful: bool, tried: bool) -> str:
    """Whether to use the prompts, or where none were tried, the model."""
    what = f"Use {'the prompts' if tried else 'the model'}:"
    if not harmful:
        return f"{what} {(WITH_PROMPTS if tried else WITHOUT)[system]}."
    if "tuned" in system:
        return f"{what} no. They make the results worse."
    return f"{what} {'no, and no BM25 either' if tried else 'yes, but without BM25'}: it makes the results worse."


def _sure(system: str, gain: Evidence, prompts: Evidence, tried: bool) -> Iterator[str]:
    """What the verdict rests on: first on the prompts, where it is about them."""
    used = "with the prompts" if "tuned" in system else "with BM25"
    if "tuned" not in system and tried:
        if prompts.test is None:
            yield f"Prompts were not compared: {prompts.on}." if prompts.on else ""
        else:
            shown = prompts.test.difference > 0 and prompts.test.p_value < ALPHA
            said = plainly("with prompts", prompts.test, prompts.on, "without them", "Prompts were not shown to help")
            yield said + " But not on those whose documents training had not seen." * shown
    if gain.test is not None:
        against = {"frozen": "the model alone", "frozen+bm25": "the model with BM25", "bm25": "BM25 alone"}[gain.rival]
        yield plainly(used if system != "bm25" else "of BM25 alone", gain.test, gain.on, f"of {against}")


def plainly(what: str, test: Comparison, on: str, against: str, unsure: str = "Not sure") -> str:
    """A test in words for those who read no statistics: "... results with the prompts are better than ...".

    Args:
        what, against: ways to have results: "with the prompts", "of the model alone".
        on: the queries, as in `Evidence`.
        unsure: what is said first where it may be chance.
    """
    split, comma, unseen = on.partition(", ")
    asked = count(test.queries, "query", "queries") + (f" ({split})" if split else "")
    asked += " about documents that training had not seen" if unseen == "unseen documents" else f"{comma}{unseen}"
    metric = metric_name(test.metric)
    low, high = (points(edge, signed=True) for edge in test.ci95)
    if test.p_value >= ALPHA:
        return (
            f"{unsure}: on {asked}, results {what} differ from those {against} by "
            f"{points(test.difference, signed=True)} points of {metric}, and anything from {low} to {high} would fit. "
            "That may be chance."
        )
    return (
        f"Sure: on {asked}, results {what} are {points(abs(test.difference))} points of {metric} "
        f"{'better' if test.difference > 0 else 'worse'} than those {against}; {low} to {high} would fit. Where "
        f"nothing differs, chance shows so large a difference {_chance(test.p_value)}."
    )


def _chance(p: float) -> str:
    return f"once in {about(round(1 / p))} tries" if p >= 0.00005 else "less than once in 10,000 tries"


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

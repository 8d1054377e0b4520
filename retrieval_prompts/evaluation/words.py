"""A paired test put into words, and systems and metrics as people call them: here and nowhere else. Knows no HTML.

Shares are shown times 100, in points. All signs are those of a keyboard, for terminals, LaTeX and Markdown; a page of
HTML sets them in type.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from retrieval_prompts.evaluation.significance import ALPHA, FEW, MATTERS, Comparison, queries_needed

SYSTEMS = {  # a system's name in results -> in a sentence, and as the heading of a row
    "bm25": ("BM25", "BM25"),
    "frozen": ("frozen", "frozen model"),
    "tuned": ("tuned", "soft prompts"),
    "linear": ("linear", "linear query adapter"),
    "lora": ("LoRA", "LoRA, query side"),
    "nudge": ("NUDGE", "NUDGE, document vectors moved"),
    "frozen+bm25": ("frozen + BM25", "frozen model + BM25"),
    "tuned+bm25": ("tuned + BM25", "soft prompts + BM25"),
    "rrf": ("RRF", "BM25 + frozen (RRF)"),
    "rrf-tuned": ("RRF-tuned", "BM25 + soft prompts (RRF)"),
    "initial": ("untrained", "prompt before training"),
    "words": ("words", "nearest words in place of vectors"),
    "random": ("random", "random vectors, mean"),
    "random words": ("random words", "random words, mean"),
    "static": ("static vectors", "static vectors alone"),
    "documents": ("documents alone", "vectors of documents alone"),
    "others": ("other queries' documents", "made from other queries' documents"),
    "initial others": ("untrained of other queries' documents", "before training, of other queries' documents"),
}
METRICS = {"ndcg": "nDCG", "map": "MAP", "mrr": "MRR", "r": "R"}
PARTS = {  # of the queries of a test, as its name in results ends
    "unseen documents": "about documents that training had not seen",
}


@dataclass(frozen=True)
class PairedTest:
    """A test of `system` against `baseline` as a result records it; `part` says on which queries, empty for all."""

    system: str
    baseline: str
    part: str
    test: Comparison
    p_adjusted: float | None = None
    effect_size: float | None = None

    @property
    def p(self) -> float:
        """The p-value that counts: the adjusted one where there is one."""
        return self.test.p_value if self.p_adjusted is None else self.p_adjusted

    @property
    def significant(self) -> bool:
        return self.p < ALPHA

    def turned(self) -> PairedTest:
        """The baseline against the system."""
        effect = None if self.effect_size is None else -self.effect_size
        return replace(self, system=self.baseline, baseline=self.system, test=self.test.turned(), effect_size=effect)

    def sentence(self, values: tuple[float, float] | None = None) -> str:
        """See `paired_sentence`."""
        part = PARTS.get(self.part, f"of the part {self.part}")
        return paired_sentence(
            system_name(self.system),
            system_name(self.baseline),
            self.test,
            on=f"the {count(self.test.queries, 'query', 'queries')} {part}" if self.part else "",
            p_adjusted=self.p_adjusted,
            values=values,
        )


def paired_tests(tests: Mapping[str, Mapping[str, Any]], systems: Iterable[str]) -> list[PairedTest]:
    """The tests of a result, with the systems that they compare, from keys such as "tuned_vs_frozen_unseen_documents".

    tests: key -> `Comparison.as_dict()`, perhaps with "p_adjusted" and "effect_size".

    Raises:
        KeyError: for others.
    """
    names = list(systems)
    pairs = {f"{a}_vs_{b}": (a, b) for a in names for b in names}
    found = []
    for key, values in tests.items():
        fitting = [name for name in pairs if key == name or key.startswith(f"{name}_")]
        stem = max(fitting, key=len, default=key)
        system, baseline = pairs.get(stem, (key, ""))
        part = key[len(stem) :].strip("_").replace("_", " ")
        more = (values.get("p_adjusted"), values.get("effect_size"))
        found.append(PairedTest(system, baseline, part, Comparison.from_dict(values), *more))
    return found


def paired_sentence(
    system: str,
    baseline: str,
    test: Comparison,
    *,
    on: str = "",
    p_adjusted: float | None = None,
    values: tuple[float, float] | None = None,
) -> str:
    """What a test found, in a sentence: better or worse only where p says so, or else what it may be: noise.

    Args:
        on: the queries, where they are not all: "the 10 queries that ...".
        p_adjusted: decides, where it is given.
        values: the means of the system and of the baseline.
    """
    metric = metric_name(test.metric)
    low, high = (points(end, signed=True) for end in test.ci95)
    both = f"{points(values[0])} against {points(values[1])}; " if values is not None else ""
    p = p_text(test.p_value, p_adjusted)
    detail = f"{both}{interval(test)}, {p}"
    if test.unchanged == test.queries:
        text = f"{system} and {baseline} have the same {metric} on every one of {_queries(test)}."
    elif (test.p_value if p_adjusted is None else p_adjusted) < ALPHA:
        gained = f"{points(abs(test.difference))} points of {metric} {'better' if test.difference > 0 else 'worse'}"
        text = f"{system} is {gained} than {baseline} ({detail}); {moved(test)}."
    elif test.queries >= FEW and max(map(abs, test.ci95)) < MATTERS:
        text = (
            f"there is no difference that matters between {system} and {baseline}: whatever it is, it lies between "
            f"{low} and {high} points of {metric} ({both}{p}); {moved(test)}."
        )
    else:
        return (
            f"{capital(on) if on else _queries(test)} are too few to tell {system} from {baseline}: "
            f"{points(test.difference, signed=True)} points of {metric}, but anything from {low} to {high} would fit "
            f"({both}{p}); {moved(test)}.{_takes(test)}"
        )
    return f"On {on}, {text}" if on else capital(text)


def moved(test: Comparison) -> str:
    """On how many queries which of the two is better."""
    return f"better on {test.helped:,} of {_queries(test)}, worse on {test.hurt:,}, the same on {test.unchanged:,}"


def interval(test: Comparison) -> str:
    low, high = (points(end, signed=True) for end in test.ci95)
    return f"95 % interval {low} to {high}"


def points(value: float, signed: bool = False) -> str:
    """A fraction x 100 with one decimal; never "-0.0"."""
    text = f"{100 * value:+.1f}" if signed else f"{100 * value:.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def p_text(p: float, adjusted: float | None = None, how: str = "adjusted") -> str:
    """p = 0.0312; with the adjusted value, p = 0.0312, 0.0938 adjusted."""
    text = f"p = {p_cell(p)}".replace("= <", "<")
    return text if adjusted is None else f"{text}, {p_cell(adjusted)} {how}"


def p_cell(p: float) -> str:
    """A p-value as it stands in a table: as many digits as 10,000 resamples can tell."""
    return f"{p:.4f}" if p >= 0.00005 else "< 0.0001"


def system_name(name: str) -> str:
    """A system's name as people write it in a sentence."""
    return SYSTEMS[name][0] if name in SYSTEMS else name


def system_title(name: str) -> str:
    """A system's name as the heading of its row: what it is made of."""
    return SYSTEMS[name][1] if name in SYSTEMS else name


def metric_name(metric: str) -> str:
    """A metric's name as people write it: nDCG@10."""
    name, at, cutoff = metric.partition("@")
    return f"{METRICS.get(name, name.replace('_', ' '))}{at}{cutoff}"


def count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def about(queries: int) -> str:
    """A number of queries as it is said of an estimate: in two digits."""
    return f"{round(queries, -max(0, int(math.log10(queries)) - 1)):,}"


def _takes(test: Comparison) -> str:
    """How many queries it takes to find a difference that matters, if they vary as these do: as the interval says."""
    low, high = test.ci95
    deviation = (high - low) / (2 * 1.96) * math.sqrt(test.queries)
    needed = queries_needed(deviation, MATTERS) if deviation > 0 else 0
    more = f" To find a difference of {points(MATTERS)} points takes about {about(needed)}." if needed else ""
    return more if needed > test.queries else ""


def _queries(test: Comparison) -> str:
    return count(test.queries, "query", "queries")

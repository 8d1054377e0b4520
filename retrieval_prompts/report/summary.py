"""A section in words: what changed, how sure that is, and what else does better. Knows no HTML.

A difference is called better or worse only where the paired test says so; everything else is called what it may be:
noise. Shares are shown times 100, in points.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from retrieval_prompts.report.content import Report, Section

SIGNIFICANT = 0.05
FEW = 30  # queries under which chance is worth a sentence of its own
SYSTEM_NAMES = {"bm25": "BM25", "lora": "LoRA", "nudge": "NUDGE", "rrf": "RRF", "rrf-tuned": "RRF-tuned"}
METRIC_NAMES = {"ndcg": "nDCG", "map": "MAP", "mrr": "MRR", "r": "R"}


@dataclass(frozen=True)
class PairedTest:
    """A paired test of `system` against `baseline`; `part` says on which queries, empty for all."""

    system: str
    baseline: str
    part: str
    values: Mapping[str, Any]

    @property
    def p(self) -> float:
        """The p-value that counts: the adjusted one where there is one."""
        adjusted = self.values.get("p_adjusted")
        return float(self.values["p_value"] if adjusted is None else adjusted)

    @property
    def count(self) -> int:
        return sum(int(self.values.get(name, 0)) for name in ("helped", "hurt", "unchanged"))


def summarize(section: Section) -> list[str]:
    """The section in sentences, the most important first."""
    chosen = pair(section)
    if chosen is None:
        return list(_alone(section))
    return list(_sentences(section, *chosen))


def overview(report: Report) -> list[str]:
    """Several sections in a sentence or two; none for a single one."""
    if len(report.sections) < 2:
        return []
    better: list[str] = []
    worse: list[str] = []
    open_: list[str] = []
    untested: list[str] = []
    for section in report.sections:
        chosen = pair(section)
        test = find_test(section, chosen[1], chosen[0]) if chosen else None
        if test is None:
            untested.append(section.name)
        elif test.p >= SIGNIFICANT:
            open_.append(section.name)
        else:
            (better if test.values["difference"] > 0 else worse).append(section.name)
    pairs = {chosen for section in report.sections if (chosen := pair(section))}
    if len(pairs) != 1 or len(untested) == len(report.sections):
        return []
    baseline, system = (system_name(name) for name in pairs.pop())
    parts = [
        f"{words} on {_names(names)}"
        for words, names in (
            (f"better than {baseline}", better),
            (f"worse than {baseline}", worse),
            (f"not to be told apart from {baseline}", open_),
            ("untested", untested),
        )
        if names
    ]
    return [f"{_capital(system)} is {_and(parts)}."]


def pair(section: Section) -> tuple[str, str] | None:
    """(baseline, system) that the section is about: the named ones, or else the first two; None for a single one."""
    names = list(section.systems)
    if section.baseline in names and section.system in names:
        return section.baseline, section.system
    if len(names) < 2:
        return None
    return names[0], names[1]


def paired_tests(section: Section) -> list[PairedTest]:
    """The tests of a section with the names of what they compare, from keys such as "tuned_vs_frozen_unseen"."""
    pairs = {f"{a}_vs_{b}": (a, b) for a in section.systems for b in section.systems}
    found = []
    for key, values in section.tests.items():
        fitting = [name for name in pairs if key == name or key.startswith(f"{name}_")]
        stem = max(fitting, key=len, default=key)
        system, baseline = pairs.get(stem, (key, ""))
        found.append(PairedTest(system, baseline, key[len(stem) :].strip("_").replace("_", " "), values))
    return found


def find_test(section: Section, system: str, baseline: str, part: str = "") -> PairedTest | None:
    """The test of one system against another, whichever way round it was written down."""
    for test in paired_tests(section):
        if test.part == part and (test.system, test.baseline) == (system, baseline):
            return test
        if test.part == part and (test.system, test.baseline) == (baseline, system):
            return _turned(test)
    return None


def system_name(name: str) -> str:
    """A system's name as people write it."""
    return SYSTEM_NAMES.get(name, name)


def metric_name(metric: str) -> str:
    """A metric's name as people write it: nDCG@10."""
    name, at, cutoff = metric.partition("@")
    return f"{METRIC_NAMES.get(name, name.replace('_', ' '))}{at}{cutoff}"


def points(value: float, signed: bool = False) -> str:
    """A fraction times 100 with one decimal and a proper minus."""
    text = f"{100 * value:+.1f}" if signed else f"{100 * value:.1f}"
    return ("0.0" if text in ("+0.0", "-0.0") else text).replace("-", "−")


def p_text(p: float) -> str:
    """p = 0.23, p = 0.031, p < 0.001."""
    if p < 0.001:
        return "p < 0.001"
    return f"p = {p:.2f}" if p >= 0.1 else f"p = {p:.3f}"


def _sentences(section: Section, baseline: str, system: str) -> Iterator[str]:
    test = find_test(section, system, baseline)
    yield _difference(section, baseline, system, test)
    yield from _queries(section, baseline, system, test)
    yield from _unseen(section, baseline, system, test)
    yield from _others(section, baseline, system)
    plain = [each for each in paired_tests(section) if each.values.get("p_adjusted") is None]
    if len(plain) > 1:
        yield (
            f"The p-values are not adjusted for the {len(plain)} tests made here: of twenty tests between equals, "
            "one looks significant by chance."
        )
    if 0 < len(section.queries) < FEW:
        count = _count(len(section.queries), "query", "queries")
        yield f"Only {count} were asked: one more or less can turn the result."


def _difference(section: Section, baseline: str, system: str, test: PairedTest | None) -> str:
    """The pair's means, on the metric of the test where there is one."""
    which = test.values.get("metric", section.metric) if test is not None else section.metric
    metric, other = metric_name(which), system_name(baseline)
    name = _capital(system_name(system))
    before, after = (section.systems[each].get(which) for each in (baseline, system))
    values = f"{points(after)} against {points(before)}" if before is not None and after is not None else ""
    if test is None:
        if before is None or after is None:
            return f"{name} and {other} were not compared on {metric}."
        gained = points(after - before, signed=True)
        if gained == "0.0":
            return f"{name} and {other} reach the same {metric}: {points(after)}."
        return f"{name} against {other}: {gained} points of {metric} ({values}). It was not tested: it could be noise."
    gap = float(test.values["difference"])
    if test.count and test.values.get("unchanged") == test.count:
        return f"{name} and {other} have the same {metric} on every one of {test.count:,} queries."
    low, high = (points(edge, signed=True) for edge in test.values["ci95"])
    adjusted = " adjusted" if test.values.get("p_adjusted") is not None else ""
    interval = f"95 % interval {low} to {high}, {p_text(test.p)}{adjusted}"
    detail = f"{values}; {interval}" if values else interval
    if test.p < SIGNIFICANT:
        direction = "better" if gap > 0 else "worse"
        return f"{name} is {points(abs(gap))} points of {metric} {direction} than {other} ({detail})."
    gained = points(gap, signed=True)
    return f"{name} and {other} cannot be told apart: {gained} points of {metric} may be noise ({detail})."


def _queries(section: Section, baseline: str, system: str, test: PairedTest | None) -> Iterator[str]:
    pairs = [
        (query.scores[baseline], query.scores[system])
        for query in section.queries
        if baseline in query.scores and system in query.scores
    ]
    helped = sum(after > before for before, after in pairs)
    hurt = sum(after < before for before, after in pairs)
    total = len(pairs)
    same_metric = test is not None and test.values.get("metric", section.metric) == section.metric
    if test is not None and same_metric and "helped" in test.values:
        helped, hurt, total = int(test.values["helped"]), int(test.values["hurt"]), test.count
    if not total or helped + hurt == 0:
        return
    kept = total - helped - hurt
    yield f"{_count(helped, 'query was', 'queries were')} helped, {hurt:,} hurt, {kept:,} unchanged."
    lost = sum(before > 0 and after == 0 for before, after in pairs)
    found = sum(before == 0 and after > 0 for before, after in pairs)
    # Not where some queries are missing here; and a metric of only 0 and 1 has said it already
    if len(pairs) == total and (lost or found) and (lost, found) != (hurt, helped):
        name = system_name(baseline)
        text = (
            f"For {_count(found, 'query', 'queries')} it finds something relevant{_where(section.metric)} "
            f"where {name} found nothing"
        )
        yield f"{text}; for {lost:,} it lost all that {name} had found." if lost else f"{text}; no query lost all."


def _unseen(section: Section, baseline: str, system: str, whole: PairedTest | None) -> Iterator[str]:
    part = find_test(section, system, baseline, "unseen documents")
    if part is None:
        return
    low, high = part.values["ci95"]
    gap = float(part.values["difference"])
    text = (
        f"On the {part.count:,} queries none of whose relevant documents was relevant in training, the difference is "
        f"{points(gap, signed=True)} points (95 % interval {points(low, signed=True)} to {points(high, signed=True)}, "
        f"{p_text(part.p)})"
    )
    gained = whole is not None and whole.p < SIGNIFICANT and whole.values["difference"] > 0
    if part.p < SIGNIFICANT and gap > 0:
        yield f"{text}: the gain is not memory of documents."
    elif gained:
        yield f"{text}: how much of the gain is memory of documents, these data do not tell."
    else:
        yield f"{text}."


def _others(section: Section, baseline: str, system: str) -> Iterator[str]:
    metric = section.metric
    means = {name: values[metric] for name, values in section.systems.items() if metric in values}
    if "bm25" in means and "bm25" not in (baseline, system) and system in means:
        yield _bm25(section, means, baseline, system)
    best = max(means, key=means.__getitem__, default=system)
    if best not in (baseline, system, "bm25"):
        yield (
            f"The highest {metric_name(metric)} of all is that of {system_name(best)}, {points(means[best])}"
            f"{_tested(find_test(section, best, system), system)}."
        )


def _bm25(section: Section, means: Mapping[str, float], baseline: str, system: str) -> str:
    gap = means["bm25"] - means[system]
    value, name = points(means["bm25"]), system_name(system)
    verdict = _tested(find_test(section, "bm25", system), system)
    if points(gap) == "0.0":
        return f"BM25 reaches {value}, as much as {name}{verdict}."
    if gap > 0:
        return f"BM25 scores higher: {value}, {points(gap)} points above {name}{verdict}."
    between = f"above {system_name(baseline)} but " if means.get(baseline, 1.0) < means["bm25"] else ""
    return f"BM25 reaches {value}, {between}{points(-gap)} points below {name}{verdict}."


def _tested(test: PairedTest | None, against: str) -> str:
    if test is None:
        return " (not tested)"
    sure = "" if test.p < SIGNIFICANT else ": it may be noise"
    return f" ({p_text(test.p)} against {system_name(against)}{sure})"


def _alone(section: Section) -> Iterator[str]:
    for name, values in section.systems.items():
        if section.metric in values:
            count = f" on {_count(len(section.queries), 'query', 'queries')}" if section.queries else ""
            yield (
                f"{_capital(system_name(name))} reaches {points(values[section.metric])} {metric_name(section.metric)}"
                f"{count}; there is nothing to compare it with."
            )


def _turned(test: PairedTest) -> PairedTest:
    values = dict(test.values)
    low, high = values["ci95"]
    values |= {"difference": -values["difference"], "ci95": [-high, -low]}
    if "helped" in values:
        values |= {"helped": test.values["hurt"], "hurt": test.values["helped"]}
    if values.get("effect_size") is not None:
        values["effect_size"] = -values["effect_size"]
    return PairedTest(test.baseline, test.system, test.part, values)


def _where(metric: str) -> str:
    cutoff = re.search(r"@(\d+)$", metric)
    return f" among the first {cutoff[1]}" if cutoff and cutoff[1] != "1" else ""


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _names(names: Sequence[str]) -> str:
    return _and(names) if len(names) <= 4 else f"{len(names)} data sets"


def _and(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"

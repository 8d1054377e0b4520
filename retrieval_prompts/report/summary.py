"""A section in words: what changed, how sure that is, and what else does better. Knows no HTML.

A difference is called better or worse only where the paired test says so; everything else is called what it may be:
noise. Shares are shown times 100, in points.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from retrieval_prompts.evaluation.significance import FEW
from retrieval_prompts.evaluation.words import (
    PairedTest,
    capital,
    count,
    metric_name,
    p_text,
    paired_tests,
    points,
    system_name,
)
from retrieval_prompts.report.content import Report, Section

SYSTEM_WORDS = {
    "frozen": ("frozen", "the model as it is"),
    "tuned": ("tuned", "the model with the trained prompts; its own weights are unchanged"),
    "bm25": ("BM25", "search by words alone, as search engines without a model do it"),
    "frozen+bm25": ("+ BM25", "one ranking by both: the model's scores and those of BM25, in a weighted sum"),
}
METRIC_WORDS = {
    "ndcg": (
        "nDCG@10",
        "how near the top the relevant documents are among the first 10: 100 is perfect, 0 is none there",
    ),
    "mrr": ("MRR@10", "100 where the first relevant document is first, 50 where it is second, 33 where it is third"),
    "map": ("MAP@100", "as nDCG, of the share of relevant documents down to each of them, among the first 100"),
    "recall": ("recall@10", "the share of the relevant documents that is among the first 10"),
}
TEST_WORDS = [
    ("points", "differences of these figures, all of which are shown times 100"),
    (
        "95 % interval",
        "what the difference may be if other queries like these were asked; one on both sides of 0 may be chance",
    ),
    ("p", "how often chance alone would show so large a difference if there were none; below 0.05 it counts as real"),
]
UNSEEN = (
    "unseen documents",
    "queries for documents that were relevant to no training query: a gain there is not memory",
)


def summarize(section: Section) -> list[str]:
    """The section in sentences, the most important first."""
    if section.sentences:
        return list(section.sentences)
    chosen = pair(section)
    found = list(_alone(section) if chosen is None else _sentences(section, *chosen))
    return [*found, section.advice] if section.advice else found


def glossary(report: Report) -> list[tuple[str, str]]:
    """The words of a page about texts, of those that occur in it; none where all systems are of other names."""
    systems = {name for section in report.sections for name in section.systems}
    metrics = {
        metric.partition("@")[0]
        for section in report.sections
        for values in section.systems.values()
        for metric in values
    }
    words = [(word, meaning) for name, (word, meaning) in SYSTEM_WORDS.items() if name in systems]
    words += [(word, meaning) for name, (word, meaning) in METRIC_WORDS.items() if name in metrics]
    if words and any(section.tests for section in report.sections):
        words += TEST_WORDS
        unseen = any(key.endswith("_unseen_documents") for section in report.sections for key in section.tests)
        words += [UNSEEN] * unseen
    return words


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
        elif not test.significant:
            open_.append(section.name)
        else:
            (better if test.test.difference > 0 else worse).append(section.name)
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
    return [f"{capital(system)} is {_and(parts)}."]


def pair(section: Section) -> tuple[str, str] | None:
    """(baseline, system) that the section is about: the named ones, or else the first two; None for a single one."""
    names = list(section.systems)
    if section.baseline in names and section.system in names:
        return section.baseline, section.system
    if len(names) < 2:
        return None
    return names[0], names[1]


def find_test(section: Section, system: str, baseline: str, part: str = "") -> PairedTest | None:
    """The test of one system against another, whichever way round it was written down."""
    for test in paired_tests(section.tests, section.systems):
        if test.part == part and (test.system, test.baseline) == (system, baseline):
            return test
        if test.part == part and (test.system, test.baseline) == (baseline, system):
            return test.turned()
    return None


def _sentences(section: Section, baseline: str, system: str) -> Iterator[str]:
    test = find_test(section, system, baseline)
    yield _difference(section, baseline, system, test)
    yield from _queries(section, baseline, system, test)
    yield from _unseen(section, baseline, system, test)
    yield from _others(section, baseline, system)
    plain = [each for each in paired_tests(section.tests, section.systems) if each.p_adjusted is None]
    if len(plain) > 1:
        yield (
            f"{len(plain)} tests were made here, and p is not adjusted for their number: where nothing differs, one "
            "test in twenty still looks real."
        )
    if 0 < len(section.queries) < FEW:
        asked = count(len(section.queries), "query", "queries")
        yield f"Only {asked} were asked: one more or less can turn the result."


def _difference(section: Section, baseline: str, system: str, test: PairedTest | None) -> str:
    """The pair's means, on the metric of the test where there is one."""
    which = section.metric if test is None else test.test.metric
    before, after = (section.systems[each].get(which) for each in (baseline, system))
    values = None if before is None or after is None else (after, before)
    if test is not None:
        return test.sentence(values)
    metric, name, other = metric_name(which), capital(system_name(system)), system_name(baseline)
    if values is None:
        return f"{name} and {other} were not compared on {metric}."
    gained = points(values[0] - values[1], signed=True)
    if gained == "0.0":
        return f"{name} and {other} reach the same {metric}: {points(values[0])}."
    both = f"{points(values[0])} against {points(values[1])}"
    return f"{name} against {other}: {gained} points of {metric} ({both}). It was not tested: it could be noise."


def _queries(section: Section, baseline: str, system: str, test: PairedTest | None) -> Iterator[str]:
    """Who is helped and hurt, where no test on the section's metric has said it; what was found and what was lost."""
    pairs = [
        (query.scores[baseline], query.scores[system])
        for query in section.queries
        if baseline in query.scores and system in query.scores
    ]
    if test is not None and test.test.metric == section.metric:
        helped, hurt, total = test.test.helped, test.test.hurt, test.test.queries
    else:
        helped = sum(after > before for before, after in pairs)
        hurt = sum(after < before for before, after in pairs)
        total, kept = len(pairs), len(pairs) - helped - hurt
        if helped + hurt:
            yield f"{count(helped, 'query was', 'queries were')} helped, {hurt:,} hurt, {kept:,} unchanged."
    lost = sum(before > 0 and after == 0 for before, after in pairs)
    found = sum(before == 0 and after > 0 for before, after in pairs)
    # Not where some queries are missing here; and a metric of only 0 and 1 has said it already
    if len(pairs) == total and (lost or found) and (lost, found) != (hurt, helped):
        name = system_name(baseline)
        text = (
            f"{count(found, 'query has', 'queries have')} something relevant{_where(section.metric)} that had nothing "
            f"with {name}"
        )
        yield (
            f"{text}; {lost:,} lost all that {'it' if lost == 1 else 'they'} had."
            if lost
            else f"{text}; none lost all."
        )


def _unseen(section: Section, baseline: str, system: str, whole: PairedTest | None) -> Iterator[str]:
    part = find_test(section, system, baseline, "unseen documents")
    if part is None:
        return
    if part.significant and part.test.difference > 0:
        yield f"{part.sentence()} The gain is not memory of documents."
    elif whole is not None and whole.significant and whole.test.difference > 0:
        yield f"{part.sentence()} How much of the gain is memory of documents, these data do not tell."
    else:
        yield part.sentence()


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
    sure = "" if test.significant else ": it may be noise"
    return f" ({p_text(test.p)} against {system_name(against)}{sure})"


def _alone(section: Section) -> Iterator[str]:
    for name, values in section.systems.items():
        if section.metric in values:
            asked = f" on {count(len(section.queries), 'query', 'queries')}" if section.queries else ""
            yield (
                f"{capital(system_name(name))} reaches {points(values[section.metric])} {metric_name(section.metric)}"
                f"{asked}; there is nothing to compare it with."
            )


def _where(metric: str) -> str:
    cutoff = re.search(r"@(\d+)$", metric)
    return f" among the first {cutoff[1]}" if cutoff and cutoff[1] != "1" else ""


def _names(names: Sequence[str]) -> str:
    return _and(names) if len(names) <= 4 else f"{len(names)} data sets"


def _and(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"

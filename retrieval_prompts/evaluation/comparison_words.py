"""A comparison of runs in words and tables: different, alike, or too few queries to tell. Knows no file.

Shares are shown times 100, in points. A and B are called by the names of their runs; differences are B minus A.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from retrieval_prompts.evaluation.comparison import (
    ENOUGH_DATASETS,
    TOP,
    Average,
    Compared,
    Ranking,
)
from retrieval_prompts.evaluation.metrics import parse_metric
from retrieval_prompts.evaluation.significance import ALPHA, FEW, Paired, queries_needed
from retrieval_prompts.evaluation.tables import Bold, Cell, Table
from retrieval_prompts.evaluation.words import about, count, interval, moved, p_cell, p_text, points

SUSPICIOUS = 0.05  # a gap in judged documents that may explain a difference
CORRECTION_NAMES = {"holm": "Holm", "bh": "Benjamini-Hochberg"}


def words(
    compared: Mapping[str, Compared],
    averages: Mapping[str, Average],
    names: tuple[str, str],
    matters: float,
    correction: str = "none",
) -> tuple[list[str], list[str]]:
    """(what was found, what to know before believing it), in sentences; data sets are named where there are several."""
    sentences, notes = [], []
    for dataset, each in compared.items():
        several = len(compared) > 1
        for metric, paired in each.metrics.items():
            found = sentence(metric, paired, names, matters, correction, len(compared))
            sentences.append(f"{dataset}, {found}" if several else found)
        notes += [f"{dataset}: {remark}" if several else remark for remark in remarks(each, names)]
    return sentences + [average_sentence(metric, each, names) for metric, each in averages.items()], notes


def verdict(paired: Paired, matters: float) -> str:
    """What the queries say of the difference: "different", "alike" or "undecided".

    Different: p < 0.05. Alike: not different, 30 queries or more, and the interval holds no difference as large as
    `matters` (a fraction). Undecided: too few queries for either.
    """
    if paired.p < ALPHA:
        return "different"
    return "alike" if paired.queries >= FEW and max(map(abs, paired.test.ci95)) < matters else "undecided"


def as_dict(compared: Compared, matters: float) -> dict[str, Any]:
    """The comparison for machines, with a verdict on each metric."""
    return {
        "queries": len(compared.qrels),
        "queries_without_relevant": compared.without_relevant,
        "judgements_not_relevant": compared.negatives,
        "rankings": {name: asdict(ranking) for name, ranking in zip("ab", compared.rankings, strict=True)},
        "metrics": {
            metric: {**paired.as_dict(), "verdict": verdict(paired, matters)}
            for metric, paired in compared.metrics.items()
        },
    }


def sentence(
    metric: str, paired: Paired, names: tuple[str, str], matters: float, correction: str = "none", datasets: int = 1
) -> str:
    """The verdict on one metric in a few plain words, with the numbers behind it."""
    a, b = names
    test, n = paired.test, count(paired.queries, "query", "queries")
    low, high = (points(end, signed=True) for end in test.ci95)
    corrected = f"after {CORRECTION_NAMES.get(correction)}'s correction for {datasets} data sets"
    p = p_text(test.p_value, paired.p_adjusted, corrected)
    values = f"{points(paired.b)} against {points(paired.a)}"
    found = verdict(paired, matters)
    if test.unchanged == paired.queries:
        few = "" if found == "alike" else " Too few queries to call them alike."
        return f"{metric}: {a} and {b} score the same on every one of {n}: {points(paired.a)}.{few}"
    if found == "different":
        direction = "better" if test.difference > 0 else "worse"
        small = "" if abs(test.difference) >= matters else f" It is less than the {points(matters)} that matter."
        return (
            f"{metric}: {b} is {direction} than {a} by {points(abs(test.difference))} points, {values} "
            f"({interval(test)}, {p}); {moved(test)}.{small}"
        )
    if found == "alike":
        return (
            f"{metric}: no difference that matters between {b} and {a}, {values}: whatever it is, it lies between "
            f"{low} and {high} points, within the {points(matters)} that matter ({p}); {moved(test)}."
        )
    return (
        f"{metric}: {n} are too few to tell {b} from {a}: {points(test.difference, signed=True)} points, but anything "
        f"from {low} to {high} would fit ({values}; {p}); {moved(test)}.{_power(paired, n, matters)}"
    )


def ranking_line(name: str, ranking: Ranking, compared: Compared) -> str:
    """What a run holds, in one line."""
    fewest, median, most = ranking.depth
    depth = f"{most:,}" if fewest == most else f"{fewest:,} to {most:,} (median {median:,.0f})"
    queries = len(compared.qrels)
    held = f"all {queries:,}" if ranking.missing == 0 else f"{queries - ranking.missing:,} of {queries:,}"
    judged = "judged" if compared.negatives else "judged, all of these relevant"
    share = f"of the top {TOP}, {points(ranking.judged)} % are {judged}"
    return f"{name}: {held} judged queries, {depth} documents each; {share}"


def remarks(compared: Compared, names: tuple[str, str]) -> list[str]:
    """What a reader should know before believing the numbers; nothing where all is well."""
    queries, found = len(compared.qrels), []
    if count := compared.without_relevant:
        found.append(f"Judged queries without a relevant document, left out: {count:,}.")
    for name, ranking, scores in zip(names, compared.rankings, compared.scores, strict=True):
        if ranking.missing:
            found.append(
                f"Judged queries that {name} does not have, each counted as 0: {ranking.missing:,} of {queries:,}."
            )
        if ranking.strangers:
            found.append(f"Queries of {name} without judgements, ignored: {ranking.strangers:,}.")
        if ranking.identical:
            relevant = ranking.identical_relevant
            found.append(
                f"Documents with the id of their query, dropped from {name} as BEIR does: {ranking.identical:,}"
                + (f", {relevant:,} of them judged relevant; is --keep-identical right here?" if relevant else ".")
            )
        if not any(any(values.values()) for values in scores.values()):
            found.append(f"{name} finds nothing relevant: are its document ids those of the judgements?")
    for metric in compared.metrics:
        cutoff = parse_metric(metric)[1]
        for name, ranking in zip(names, compared.rankings, strict=True):
            if ranking.depth[2] < cutoff:
                found.append(
                    f"{name} holds at most {ranking.depth[2]:,} documents a query, but {metric} looks at {cutoff:,}:"
                    " what it would have found further down counts as not found."
                )
    return found + _unjudged(compared, names)


def average_sentence(metric: str, average: Average, names: tuple[str, str]) -> str:
    """The average over data sets in words, and why there is a test over data sets or none."""
    a, b = names
    text = (
        f"{metric}, average of {average.datasets} data sets, each counting the same: {b} {points(average.b)}, {a} "
        f"{points(average.a)}, {points(average.b - average.a, signed=True)} points; better on {average.better} of"
        f" {average.datasets}"
    )
    if average.test is None:
        return (
            f"{text}. No test over data sets: fewer than {ENOUGH_DATASETS} cannot reach p < {ALPHA}, and queries of"
            " different data sets are not pooled."
        )
    surely = "a significant" if average.test.p_value < ALPHA else "no significant"
    return f"{text}. Paired test over data sets: {p_text(average.test.p_value)}, {surely} difference."


def results_table(compared: Mapping[str, Compared], systems: tuple[str, str], correction: str) -> Table:
    """A row for each data set (named where there are several) and metric; the better system is bold where p < 0.05."""
    several = len(compared) > 1
    adjusted = several and correction != "none"
    header = [*_first(several, "data set"), "metric", *systems, "change [95 %]", "p"]
    header += [f"p ({CORRECTION_NAMES[correction]})"] if adjusted else []
    rows: list[list[Cell]] = []
    for name, each in compared.items():
        for metric, paired in each.metrics.items():
            test = paired.test
            low, high = (points(end, signed=True) for end in test.ci95)
            values: list[Cell] = [100 * paired.a, 100 * paired.b]
            if paired.p < ALPHA:
                better = int(test.difference > 0)
                values[better] = Bold(100 * (paired.a, paired.b)[better])
            row: list[Cell] = [
                *_first(several, name),
                metric,
                *values,
                f"{points(test.difference, signed=True)} [{low}, {high}]",
            ]
            row += [p_cell(p) for p in (test.p_value, paired.p)[: 1 + adjusted]]
            detects = None if paired.detectable is None else 100 * paired.detectable
            rows.append([*row, f"{test.helped:,} / {test.hurt:,} / {test.unchanged:,}", detects])
    return [*header, "better / worse / same", "detectable"], rows


def tests_table(compared: Mapping[str, Compared]) -> Table:
    """The same rows: three paired tests and two effect sizes, none of the p-values adjusted."""
    several = len(compared) > 1
    header = [*_first(several, "data set"), "metric", "p permutation", "p t-test", "p Wilcoxon", "d_z", "rank-biserial"]
    rows: list[list[Cell]] = []
    for name, each in compared.items():
        for metric, paired in each.metrics.items():
            p_values = (paired.test.p_value, paired.p_t, paired.p_wilcoxon)
            effects = (paired.d_z, paired.rank_biserial)
            rows.append(
                [
                    *_first(several, name),
                    metric,
                    *(None if p is None else p_cell(p) for p in p_values),
                    *(None if effect is None else f"{effect:+.2f}" for effect in effects),
                ]
            )
    return header, rows


def per_query_table(compared: Mapping[str, Compared], names: tuple[str, str]) -> Table:
    """A row for each data set, metric and query; fractions."""
    rows: list[list[Cell]] = [
        [name, query, metric, value, each.scores[1][metric][query], each.scores[1][metric][query] - value]
        for name, each in compared.items()
        for metric, values in each.scores[0].items()
        for query, value in values.items()
    ]
    return ["dataset", "query", "metric", *names, "difference"], rows


def _first(several: bool, cell: str) -> list[str]:
    return [cell] if several else []


def _power(paired: Paired, n: str, matters: float) -> str:
    if paired.detectable is None or paired.deviation is None:
        return ""
    needed = queries_needed(paired.deviation, matters)
    text = f" {n[0].upper()}{n[1:]} find a difference of {points(paired.detectable)} points or more 4 times out of 5"
    if needed <= paired.queries:
        return f"{text}."
    return f"{text}; to find one of {points(matters)} takes about {about(needed)}."


def _unjudged(compared: Compared, names: tuple[str, str]) -> list[str]:
    """Where a gap in judged documents may be what makes the difference."""
    if not compared.negatives:
        return []
    found = []
    judged = [ranking.judged for ranking in compared.rankings]
    for metric, paired in compared.metrics.items():
        difference = paired.test.difference
        loser = 0 if difference > 0 else 1
        if difference and judged[1 - loser] - judged[loser] >= SUSPICIOUS:
            found.append(
                f"{metric}: be careful, {names[loser]} is behind with fewer judged documents in its top {TOP} "
                f"({points(judged[loser])} %, {names[1 - loser]} {points(judged[1 - loser])} %). One without a "
                "judgement counts as not relevant, so part of the difference may be missing judgements: with judged "
                f"documents alone it is {points(paired.judged_only or 0.0, signed=True)} points instead of "
                f"{points(difference, signed=True)}."
            )
    return found

"""Report -> one HTML file that stands alone: no address it could load from, no script but its own (by its hash).

The summary, the tables and the plots are in the HTML itself; script.js adds sorting, searching and the rankings.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from retrieval_prompts.evaluation.words import PairedTest, metric_name, p_cell, paired_tests, points, system_name
from retrieval_prompts.files import check_output, write_bytes
from retrieval_prompts.report import charts, embed
from retrieval_prompts.report.content import Block, Figures, Heat, Lines, Matrix, Report, Section, Span
from retrieval_prompts.report.summary import glossary, overview, summarize

__all__ = ["fill", "render", "summarize", "write_page", "write_report"]

FIRST_ROWS = 25  # queries in the HTML itself; as many as script.js shows at a time
WORDS_SHOWN = 64  # prompt vectors


def render(report: Report) -> str:
    """The page.

    Raises:
        UserError: for a picture that is not a data: address.
    """
    return fill(
        "report.html.j2",
        script=_resource("script.js"),
        title=report.title,
        facts=report.facts,
        notes=report.notes,
        verdict=report.verdict,
        about=report.about,
        glossary=glossary(report),
        overview=_overview(report) if len(report.sections) > 1 else None,
        sections=[_section(f"s{number}", section) for number, section in enumerate(report.sections, 1)],
    )


def fill(template: str, *, script: str = "", **content: Any) -> str:
    """A page from a template that extends base.html.j2, which shows `title` and `facts`. All texts are escaped.

    Args:
        script: the only one that may run; empty: none may.
    """
    style = _resource("style.css")
    policy = ["default-src 'none'", "img-src data:", f"style-src '{_digest(style)}'"]
    policy += [f"script-src '{_digest(script)}'"] if script else []
    environment = Environment(
        loader=FunctionLoader(_resource),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"metric": metric_name, "system": system_name, "tied": typeset}
    return environment.get_template(template).render(
        content,
        style=Markup(style),
        script=Markup(script),
        policy="; ".join([*policy, "base-uri 'none'", "form-action 'none'"]),
    )


def write_report(path: Path | str, report: Report, *, overwrite: bool = False) -> None:
    """Write the page, whole or not at all.

    Raises:
        UserError: when the file exists and `overwrite` is not given.
    """
    check_output(Path(path), overwrite=overwrite)
    write_page(Path(path), render(report))


def write_page(path: Path, html: str) -> None:
    """Write the page, whole or not at all, in place of what is there."""
    write_bytes(path, html.encode("utf-8", "replace"))


def _section(id: str, section: Section) -> dict[str, Any]:
    """What the template shows of a section; `id` is that of its element."""
    count = len(section.queries)
    listed, ranked = min(count, embed.LISTED), min(count, embed.RANKED)
    return {
        "id": id,
        "section": section,
        "sentences": summarize(section),
        "table": _table(section),
        "tests": _tests(section),
        "pair": embed.compared(section),
        "distribution": _distribution(section),
        "rows": _rows(section),
        "scored": embed.scored_systems(section),
        "count": count,
        "listed": listed,
        "ranked": ranked,
        "plots": _plots(section),
        "plotted": " and ".join(
            ["training"] * bool(section.loss or section.dev) + ["strength"] * bool(section.strength)
        ),
        "words": [(side, rows[:WORDS_SHOWN], len(rows)) for side, rows in section.words.items() if rows],
        "blocks": [_block(block) for block in section.blocks],
        "data": Markup(embed.embedded(embed.payload(section))),
    }


def _overview(report: Report) -> dict[str, Any]:
    """Systems by data sets, in each section's own metric, with the averages where they are given."""
    systems = list(dict.fromkeys(name for section in report.sections for name in section.systems))
    columns = [
        {name: section.systems[name].get(section.metric) for name in section.systems} for section in report.sections
    ]
    metrics = {section.metric for section in report.sections}
    average = next(iter(metrics)) if len(metrics) == 1 else None
    if average is not None and any(average in values for values in report.averages.values()):
        columns.append({name: values.get(average) for name, values in report.averages.items()})
    else:
        average = None
    cells = [_marked([column.get(name) for name in systems]) for column in columns]
    return {
        "sentences": overview(report),
        "average": average is not None,
        "one_metric": metrics.pop() if len(metrics) == 1 else None,
        "rows": [(name, [column[row] for column in cells]) for row, name in enumerate(systems)],
    }


def _table(section: Section) -> dict[str, Any]:
    metrics = list(dict.fromkeys(metric for values in section.systems.values() for metric in values))
    columns = [_marked([values.get(metric) for values in section.systems.values()]) for metric in metrics]
    rows = [(name, [column[row] for column in columns]) for row, name in enumerate(section.systems)]
    return {"metrics": metrics, "rows": rows}


def _marked(values: Sequence[float | None]) -> list[tuple[str, bool]]:
    """(text, whether it is the best of the column), best as it is printed."""
    texts = [points(value) if value is not None and math.isfinite(value) else "–" for value in values]
    known = [value for value in values if value is not None and math.isfinite(value)]
    best = points(max(known)) if len(known) > 1 else None
    return [(text, text == best) for text in texts]


def _tests(section: Section) -> list[dict[str, Any]]:
    found = paired_tests(section.tests, section.systems)
    reach = max((abs(edge) for each in found for edge in each.test.ci95), default=0.0)
    return [
        {
            "system": each.system,
            "baseline": each.baseline,
            "part": _part(section, each),
            "difference": typeset(points(each.test.difference, signed=True)),
            "interval": typeset(" to ".join(points(edge, signed=True) for edge in each.test.ci95)),
            "picture": charts.interval(each.test.ci95[0], each.test.difference, each.test.ci95[1], reach),
            "p": p_cell(each.test.p_value),
            "adjusted": None if each.p_adjusted is None else p_cell(each.p_adjusted),
            "effect": None if each.effect_size is None else typeset(f"{each.effect_size:+.2f}"),
            "counts": [each.test.helped, each.test.hurt, each.test.unchanged],
        }
        for each in found
    ]


def _part(section: Section, paired: PairedTest) -> str:
    """What sets a test apart: its metric where it is another one, and its queries where they are not all."""
    metric = paired.test.metric
    parts = [metric_name(metric)] if metric != section.metric else []
    return ", ".join(parts + [f"{paired.test.queries:,} queries, {paired.part}"] * bool(paired.part))


def _distribution(section: Section) -> dict[str, Any] | None:
    chosen = embed.compared(section)
    if chosen is None:
        return None
    changes = sorted((embed.change(query, chosen) for query in embed.by_change(section)[: embed.LISTED]), reverse=True)
    above, below = charts.distribution_paths(changes)
    return {
        "above": above,
        "below": below,
        "helped": sum(change > 0 for change in changes),
        "hurt": sum(change < 0 for change in changes),
        "unchanged": sum(change == 0 for change in changes),
    }


def _rows(section: Section) -> list[dict[str, Any]]:
    """The first queries of the list as script.js shows them."""
    chosen = embed.compared(section)
    rows = []
    for query in embed.by_change(section)[:FIRST_ROWS]:
        change = embed.change(query, chosen)
        rows.append(
            {
                "id": query.id,
                "text": embed.cut(query.text),
                "picture": embed.picture(query.picture, f"query {query.id!r}"),
                "change": typeset(points(change, signed=True)),
                "direction": "up" if change > 0 else "down" if change < 0 else "same",
                "bar": charts.change_bar(change) if change else "",
                "scores": {name: points(score) for name, score in query.scores.items()},
            }
        )
    return rows


def _block(block: Block) -> dict[str, Any]:
    for shown in block.pictures:
        embed.picture(shown.picture, shown.place)
    return {
        "title": block.title,
        "sentences": block.sentences,
        "plots": list(map(_plot, block.plots)),
        "tables": list(map(_grid, block.tables)),
        "pictures": block.pictures,
    }


def _plot(plot: Lines | Heat | Matrix) -> Markup:
    if isinstance(plot, Lines):
        return charts.line_chart(plot.curves, title=plot.title, x=plot.x, y=plot.y, percent=plot.percent)
    return charts.heat(plot) if isinstance(plot, Heat) else charts.matrix(plot)


def _grid(table: Figures) -> dict[str, Any]:
    spans = [cell for row in table.rows for cell in row if isinstance(cell, Span)]
    reach = max((max(abs(span.low), abs(span.high)) for span in spans), default=0.0)
    cells = [
        [
            charts.interval(cell.low, cell.middle, cell.high, reach) if isinstance(cell, Span) else typeset(cell)
            for cell in row
        ]
        for row in table.rows
    ]
    return {"caption": table.caption, "header": table.header, "rows": cells, "texts": list(table.texts)}


def _plots(section: Section) -> list[Markup]:
    metric = metric_name(section.metric)
    plots = [
        charts.line_chart(section.loss, title="Training loss", x="step", y="loss"),
        charts.line_chart(section.dev, title=f"{metric} on the dev queries", x="step", y=metric, percent=True),
        charts.line_chart(
            section.strength, title="Strength of the prompt: from frozen to tuned", x="strength", y=metric, percent=True
        ),
        charts.line_chart(
            section.trade,
            title="What a strength changes here and elsewhere",
            x="strength",
            y=f"{metric}, change",
            percent=True,
        ),
    ]
    return [plot for plot in plots if plot]


def typeset(text: str) -> str:
    """Plain text as a page shows it: a proper minus, and no line break within "p = 0.03" and "95 %"."""
    text = re.sub(r"(?<![\w.)-])-(?=\d)", "\N{MINUS SIGN}", text)
    return re.sub(r"\bp ([=<]) (?=\d)", "p\u00a0\\1\u00a0", text).replace(" %", "\u00a0%")


def _resource(name: str) -> str:
    return (files("retrieval_prompts.report") / name).read_text(encoding="utf-8")


def _digest(content: str) -> str:
    """What a Content-Security-Policy knows an inline script or style by."""
    return f"sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}"

"""What `index_types.compare_factories` found, for people: the best trade-offs, a table, a picture. Measures nothing."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrieval_prompts.errors import UserError
from retrieval_prompts.evaluation.metrics import HEADLINE
from retrieval_prompts.experiments.indexes.index_types import Measurement
from retrieval_prompts.files import check_output, write_bytes

if TYPE_CHECKING:
    from rich.table import Table

MARKERS = "osD^vP*Xd<>h"
FORMATS = ("svg", "png", "pdf")


def best(rows: Sequence[Measurement]) -> list[bool]:
    """For each row: is none of the same queries at least as good in recall, speed and size, and better in one?

    Speeds and sizes within a tenth of each other count as equal, recalls within 0.001: the first row of them is best.
    """

    def better(one: Measurement, other: Measurement) -> bool:
        gains = (
            one.recall - other.recall > 0.001,
            one.queries_per_second > 1.1 * other.queries_per_second,
            1.1 * one.bytes_per_vector < other.bytes_per_vector,
        )
        losses = (
            other.recall - one.recall > 0.001,
            other.queries_per_second > 1.1 * one.queries_per_second,
            1.1 * other.bytes_per_vector < one.bytes_per_vector,
        )
        return any(gains) and not any(losses)

    return [not any(better(other, row) for other in rows if other.queries == row.queries) for row in rows]


def table(rows: Sequence[Measurement]) -> Table:
    """A part for each factory with a line for each setting, the kinds of queries side by side, percent.

    * marks the best trade-offs, by the last kind of queries, whose speed is shown.
    """
    from rich.table import Table

    names = list(dict.fromkeys(row.queries for row in rows))
    star = {id(row): "*" for row, good in zip(rows, best(rows), strict=True) if good}
    metrics = {"recall": "recall"} | ({"ndcg": HEADLINE} if rows[0].ndcg is not None else {})
    heads = [metric if len(names) == 1 else f"{metric}\n{name}" for metric in metrics.values() for name in names]
    result = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    result.add_column("", no_wrap=True)
    result.add_column("index", no_wrap=True)
    for head in (*heads, "queries\n/second", "bytes/\nvector", "build\ns"):
        result.add_column(head, justify="right", no_wrap=True)
    for factory in dict.fromkeys(row.factory for row in rows):
        lines: dict[str, dict[str, Measurement]] = {}  # setting -> queries -> row
        for row in rows:
            if row.factory == factory:
                lines.setdefault(label(row.setting), {})[row.queries] = row
        built = next(iter(lines.values()))[names[-1]]
        build = [f"{built.bytes_per_vector:,.0f}", f"{built.build_seconds:.1f}"]
        if "" not in lines:
            result.add_row("", factory, *[""] * (len(heads) + 1), *build)
        for setting, kinds in lines.items():
            last = kinds[names[-1]]
            cells = [f"{100 * getattr(kinds[name], metric):.1f}" for metric in metrics for name in names]
            head = f"  {setting}" if setting else factory
            cells.append(f"{last.queries_per_second:,.0f}")
            result.add_row(star.get(id(last), ""), head, *cells, *([] if setting else build))
    return result


def label(setting: Mapping[str, int]) -> str:
    """The setting in words: nprobe 4, k_factor 16."""
    return ", ".join(f"{name} {value}" for name, value in setting.items())


def picture(rows: Sequence[Measurement], path: Path | str, *, title: str = "", overwrite: bool = False) -> None:
    """Draw recall against queries a second, a line for each factory; the name's end says SVG, PNG or PDF.

    A line joins the settings of a factory that none of its others beats in both; those are faint. Kinds of queries
    stand side by side.

    Raises:
        UserError: without matplotlib (the extra "plot"), and for another ending.
    """
    path = Path(path)
    check_picture(path, overwrite=overwrite)
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(row.queries for row in rows))
    factories = list(dict.fromkeys(row.factory for row in rows))
    figure = Figure(figsize=(5.2 * len(names) + 2.6, 4.6), layout="constrained")
    panels = figure.subplots(1, len(names), sharex=True, sharey=True, squeeze=False)[0]
    handles = []
    for panel, name in zip(panels, names, strict=True):
        for number, factory in enumerate(factories):
            points = [
                (row.queries_per_second, row.recall) for row in rows if (row.factory, row.queries) == (factory, name)
            ]
            front = sorted(p for p in points if not any(q != p and q[0] >= p[0] and q[1] >= p[1] for q in points))
            style: dict[str, Any] = {"color": f"C{number % 10}", "marker": MARKERS[number % len(MARKERS)]}
            line_style = "-" if number < 10 else "--"  # there are ten colours
            (line,) = panel.plot(
                *zip(*front, strict=True), label=factory, markersize=5, linewidth=1.4, linestyle=line_style, **style
            )
            panel.plot(*zip(*points, strict=True), linestyle="none", markersize=4, alpha=0.25, **style)
            if panel is panels[0]:
                handles.append(line)
        panel.set_xscale("log")
        panel.set_xlabel(f"queries a second, {rows[0].threads} thread{'s' * (rows[0].threads > 1)}")
        panel.grid(True, which="both", alpha=0.2)
        if len(names) > 1:
            panel.set_title(f"{name} queries", fontsize=10)
    panels[0].set_ylabel(f"recall@{rows[0].k} against exact search")
    figure.legend(handles=handles, loc="outside right upper", fontsize=8, frameon=False)
    if title:
        figure.suptitle(title, fontsize=11)
    content = io.BytesIO()
    figure.savefig(content, format=path.suffix[1:].lower(), dpi=150)
    write_bytes(path, content.getvalue())


def check_picture(path: Path, *, overwrite: bool = False) -> None:
    """Refuse, before anything is measured, a picture that could not be written. Raises UserError."""
    check_output(path, overwrite=overwrite)
    if path.suffix[1:].lower() not in FORMATS:
        raise UserError(f"{path} should end in {', '.join(f'.{each}' for each in FORMATS)}: the kind of the picture")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise UserError('a picture needs matplotlib: pip install "retrieval-prompts[plot]"') from None

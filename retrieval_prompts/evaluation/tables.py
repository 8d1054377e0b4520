"""Tables for papers, pages and spreadsheets: rows of cells as Markdown, LaTeX or CSV. Knows no run and no model."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from retrieval_prompts.errors import UserError, shown

if TYPE_CHECKING:
    from rich.table import Table as RichTable


@dataclass(frozen=True)
class Bold:
    """A cell that stands out: the best of its column, for instance."""

    value: str | float


@dataclass(frozen=True)
class Mean:
    """A mean and its standard deviation, shown as 71.2±0.4; in CSV the mean alone."""

    value: float
    deviation: float


Cell = str | float | Bold | Mean | None  # None or NaN: there is no value
Table = tuple[list[str], list[list[Cell]]]  # header, rows

# In Markdown these would start a cell, code, emphasis, HTML, a link or an entity. An underscore within a word does not.
MARKDOWN = re.compile(r"[\\|`*~<]|(?<![^\W_])_|_(?![^\W_])|\](?=[(\[])|&(?=#?\w+;)")
BOLD_START, BOLD_END = "\ue000", "\ue001"  # private characters: tabulate passes them through its LaTeX escapes


def markdown(rows: Sequence[Sequence[Cell]], header: Sequence[str], digits: int = 1) -> str:
    """A pipe table, floats with so many digits, a missing value as a dash; ends with a line break.

    A column of numbers is aligned right.

    Raises:
        UserError: when there are no rows, or one is not as long as the header.
    """
    escaped = [[_markdown(name) for name in header]]
    for row in rows:
        cells = []
        for cell in row:
            text = _markdown(_text(cell, digits, "-"))
            cells.append(f"**{text}**" if isinstance(cell, Bold) else text)
        escaped.append(cells)
    return _tabulate(rows, escaped, "pipe")


def latex(rows: Sequence[Sequence[Cell]], header: Sequence[str], digits: int = 1) -> str:
    r"""A tabular of the package booktabs, all text escaped, a missing value as "--"; otherwise as `markdown`."""
    plain = [[_one_line(name) for name in header]]
    for row in rows:
        cells = []
        for cell in row:
            text = _one_line(_text(cell, digits, "--"))
            cells.append(f"{BOLD_START}{text}{BOLD_END}" if isinstance(cell, Bold) else text)
        plain.append(cells)
    text = _tabulate(rows, plain, "latex_booktabs")
    return text.replace(BOLD_START, r"\textbf{").replace(BOLD_END, "}")


def rich_table(
    rows: Sequence[Sequence[Cell]], header: Sequence[str], digits: int = 1, title: str | None = None
) -> RichTable:
    """The table for a terminal, to print with rich; otherwise as `markdown`."""
    from rich.table import Table as RichTable
    from rich.text import Text  # not markup: a name may hold brackets

    _check(rows, header)
    result = RichTable(title=None if title is None else Text(shown(title)), title_justify="left")
    columns = zip(*([_text(cell, digits, "-") for cell in row] for row in rows), strict=True)
    for name, align, cells in zip(header, _align(rows), columns, strict=True):
        # Where a terminal is narrow, headings and cells of several words are broken; no name, no number is cut short
        several = any(" " in cell for cell in (name, *cells))
        least = max(len(word) for cell in (name, *cells) for word in (cell.split() or [""])) if several else None
        result.add_column(Text(shown(name)), justify=align, no_wrap=not several, overflow="fold", min_width=least)
    for row in rows:
        texts = (Text(shown(_text(cell, digits, "-")), "bold" if isinstance(cell, Bold) else "") for cell in row)
        result.add_row(*texts)
    return result


def csv(rows: Sequence[Sequence[Cell]], header: Sequence[str]) -> str:
    """Comma-separated values after RFC 4180 (line breaks as on Unix): numbers in full, a missing value empty."""
    from csv import writer

    _check(rows, header)
    file = io.StringIO()
    out = writer(file, lineterminator="\n")
    out.writerow(header)
    out.writerows([[_raw(cell) for cell in row] for row in rows])
    return file.getvalue()


def metrics_table(systems: Mapping[str, Mapping[str, float | None]]) -> Table:
    """(header, rows) of several metrics x 100: a row for each system, a column for each metric of any of them."""
    metrics = list(dict.fromkeys(metric for values in systems.values() for metric in values))
    means = {system: [values.get(metric) for metric in metrics] for system, values in systems.items()}
    rows: list[list[Cell]] = [
        [system, *(None if value is None else 100 * value for value in values)] for system, values in means.items()
    ]
    return ["system", *metrics], rows


def systems_table(
    datasets: Mapping[str, Mapping[str, Mapping[str, float]]],
    metric: str,
    best: str | None = "bold",
    digits: int = 1,
) -> Table:
    """(header, rows) of one metric x 100: a row for each system, a column for each data set, the average at the end.

    Args:
        datasets: data set -> system -> metric -> mean, a fraction. Rows and columns keep the order of appearance.
        best: "bold" marks the highest value of a column of two systems or more, and all that equal it with so many
            digits; None marks nothing.

    The average is taken over the data sets on which every system has a value; its heading says how many these are when
    they are not all of them, and there is no average when there are none.
    """
    systems = list(dict.fromkeys(system for values in datasets.values() for system in values))
    columns = [[_times_100(values.get(system, {}).get(metric)) for system in systems] for values in datasets.values()]
    complete = [column for column in columns if None not in column]
    averages = [math.fsum(map(float, values)) / len(values) for values in zip(*complete, strict=True)]
    count = "" if len(complete) == len(columns) else f" of {len(complete)}"
    columns.append([*averages] if complete else [None] * len(systems))
    marked = [_mark(column, digits) if best == "bold" else column for column in columns]
    rows: list[list[Cell]] = [[system, *(column[row] for column in marked)] for row, system in enumerate(systems)]
    return ["system", *datasets, f"average{count}"], rows


def _times_100(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else round(100 * value, 10)  # 7.0, not 7.000000000000001


def _mark(column: Sequence[float | None], digits: int) -> list[Cell]:
    shown = [None if value is None else round(value, digits) for value in column]
    values = [value for value in shown if value is not None]
    if len(values) < 2:
        return [*column]
    return [
        Bold(value) if value is not None and near == max(values) else value
        for value, near in zip(column, shown, strict=True)
    ]


def _value(cell: Cell) -> str | float | None:
    value = cell.value if isinstance(cell, Bold | Mean) else cell
    return None if isinstance(value, float) and math.isnan(value) else value


def _raw(cell: Cell) -> str | float:
    value = _value(cell)
    return "" if value is None else value


def _text(cell: Cell, digits: int, missing: str) -> str:
    value = _value(cell)
    if value is None:
        return missing
    text = f"{value:.{digits}f}" if isinstance(value, float) else str(value)
    return f"{text}±{cell.deviation:.{digits}f}" if isinstance(cell, Mean) else text


def _one_line(text: str) -> str:
    return " ".join(text.replace(BOLD_START, "").replace(BOLD_END, "").split())


def _markdown(text: str) -> str:
    return MARKDOWN.sub(r"\\\g<0>", _one_line(text))


def _tabulate(rows: Sequence[Sequence[Cell]], texts: list[list[str]], style: str) -> str:
    from tabulate import tabulate

    header, *body = texts
    _check(rows, header)
    return tabulate(body, header, tablefmt=style, disable_numparse=True, colalign=_align(rows)) + "\n"


def _align(rows: Sequence[Sequence[Cell]]) -> list[Literal["left", "right"]]:
    if not rows:
        raise UserError("there are no rows to make a table of")
    columns = zip(*rows, strict=True)
    return ["left" if any(isinstance(_value(cell), str) for cell in column) else "right" for column in columns]


def _check(rows: Sequence[Sequence[Cell]], header: Sequence[str]) -> None:
    for number, row in enumerate(rows, 1):
        if len(row) != len(header):
            raise UserError(f"row {number} of the table has {len(row)} cells, but its header has {len(header)}")

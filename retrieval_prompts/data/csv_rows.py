"""Tables as CSV, read strictly. Knows no column."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from retrieval_prompts.data.lines import fields, read_lines
from retrieval_prompts.errors import DataWarning, UserError, few


def csv_rows(
    path: Path, required: Sequence[str], optional: Sequence[str] = (), *, rest: bool = False
) -> Iterator[tuple[int, dict[str, str | None]]]:
    """(line number from 1, column -> value without surrounding spaces) of a CSV file with a header, in UTF-8.

    Columns may stand in any order, with comma, semicolon, tab or "|" between. An optional column that is not there is
    None in every row; columns that are neither are ignored, with a DataWarning.

    Args:
        rest: the last column takes what is more than the columns: a text with commas that nobody quoted.

    Raises:
        UserError: with file and line for a header without a required column, a row with more or fewer values than
            columns, and bad quoting.
    """
    number, raw = 0, ""

    def lines() -> Iterator[str]:
        nonlocal number, raw
        for number, raw in read_lines(path):  # noqa: B007 - read below
            yield raw

    text = lines()
    header = next(text, "")
    expected = ",".join(required) + "".join(f"[,{name}]" for name in optional)
    for delimiter in ",;\t|":
        columns = [name.strip().lower() for name in fields(header, delimiter)]
        if set(required) <= set(columns):
            break
    else:
        came = repr(header.strip()[:80]) if header else "an empty file"
        raise UserError(f"{path}:{number or 1}: expected a header line {expected}, got {came}")
    if twice := [name for name in dict.fromkeys(columns) if columns.count(name) > 1]:
        raise UserError(f"{path}:{number}: the header has the column {twice[0]!r} twice")
    if other := [name for name in columns if name not in (*required, *optional)]:
        message = f"{path}: columns that are not used: {few(other)}; used are {expected}"
        warnings.warn(message, DataWarning, stacklevel=3)
    try:
        for row in csv.reader(text, delimiter=delimiter, strict=True, skipinitialspace=True):
            if rest and len(row) > len(columns):
                before = len(columns) - 1
                # As it was written, where no quotes say which separators are part of a value
                text_of = f"{delimiter} ".join(row[before:]) if '"' in raw else raw.split(delimiter, before)[-1]
                row = [*row[:before], text_of]
            if len(row) != len(columns):
                raise UserError(
                    f"{path}:{number}: expected {len(columns)} values as in the header, got {len(row)};"
                    " put a value that holds the separator between double quotes"
                )
            values = dict(zip(columns, (value.strip() for value in row), strict=True))
            yield number, {name: values.get(name) for name in (*required, *optional)}
    except csv.Error as error:
        raise UserError(f"{path}:{number}: malformed CSV ({error})") from None

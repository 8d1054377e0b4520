"""Tables, a row at a time: CSV, TSV, JSON, JSON lines, Parquet, Hugging Face data sets on disk. Knows no column.

Only the columns that are asked for are read, and never a whole file at once.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from retrieval_prompts.data.lines import LINE, WHOLE, fields, json_rows
from retrieval_prompts.data.sources.left_out import LeftOut
from retrieval_prompts.data.sources.opened import kind, open_text, text_lines
from retrieval_prompts.errors import MissingPackage, UserError, first_line
from retrieval_prompts.files import read_json

DELIMITERS = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
TABLES = (*DELIMITERS, ".json", ".jsonl", ".ndjson", ".parquet", ".pq")
PIECE = 1 << 20  # characters of a JSON array, or bytes of a column of Parquet, that are read at once
SEPARATOR = re.compile(r"sep=([^\r\n])[\r\n]*", re.IGNORECASE)  # a first line by which Excel is told the delimiter
BETWEEN = tuple(", \t\r\n")  # the objects of an array
CUT = 16  # characters before its end in which a piece of JSON is wrong where it is only cut
Rows = Iterator[tuple[int, Sequence[Any]]]


@dataclass(frozen=True)
class Table:
    """A table on disk.

    Args:
        columns: their names; "1", "2" ... where the file has no header.
        read: the columns that are wanted -> (number of the line or row from 1, their values), None for a missing one.
        header: whether the file names its columns.
        peek: as `read`, where that counts what it leaves out.
    """

    path: Path
    columns: list[str]
    read: Callable[[Sequence[str]], Rows]
    header: bool = True
    peek: Callable[[Sequence[str]], Rows] | None = None

    def sample(self, count: int = 50) -> dict[str, list[Any]]:
        """Column -> its first values."""
        rows = [values for _, values in islice((self.peek or self.read)(self.columns), count)]
        return {name: [values[place] for values in rows] for place, name in enumerate(self.columns)}


def open_table(path: Path, known: Callable[[str], bool], left: LeftOut) -> Table:
    """Open a table by the ending of its name.

    Args:
        known: whether a name is one that columns have: a first line with one is a header.
        left: gets the rows that do not fit their header.

    Raises:
        UserError: for another ending, an empty file, and what cannot be read.
    """
    ending = kind(path)
    if path.is_dir():
        return _hugging_face(path)
    if ending in (".parquet", ".pq"):
        return _parquet(path)
    if ending in DELIMITERS:
        return _separated(path, DELIMITERS[ending], known, left)
    if ending in (".json", ".jsonl", ".ndjson"):
        return _json(path, known)
    raise UserError(f"{path}: expected a table, by its name one of {', '.join(TABLES)} (also with .gz or .zst)")


def _separated(path: Path, delimiter: str, known: Callable[[str], bool], left: LeftOut) -> Table:
    csv.field_size_limit(LINE)
    with open_text(path) as file:
        said = SEPARATOR.fullmatch(next(text_lines(file, path), ""))
    with open_text(path) as file:
        lines = _lines(path, file)
        first, second = _header(lines), next(filter(str.strip, lines), "")
    delimiter = said[1] if said else _delimiter(first, second, delimiter)
    with open_text(path) as file:
        _, row = next(_records(path, _lines(path, file), delimiter, first.count(delimiter) + 1), (0, []))
    if not row:
        raise UserError(f"{path} is empty; expected a table with a header")
    cells = [cell.strip() for cell in row]
    header = any(map(known, cells)) or not any(_is_value(cell) for cell in cells)
    columns = cells if header else [str(number) for number in range(1, len(cells) + 1)]

    def read(left: LeftOut, wanted: Sequence[str]) -> Rows:
        places = [columns.index(name) for name in wanted]
        with open_text(path) as file:
            rows = _records(path, _lines(path, file), delimiter, len(columns))
            if header:
                next(rows)
            for number, row in rows:
                if len(row) == len(columns):
                    yield number, [row[place] for place in places]
                else:
                    left.note("rows with more or fewer values than columns", f"{path}:{number}")

    return Table(path, columns, partial(read, left), header, partial(read, LeftOut()))


def _header(lines: Iterator[str]) -> str:
    """The first line that is not blank, with those that a quoted name of a column goes on for; "" without any."""
    header = first = next(filter(str.strip, lines), "")
    for _ in range(20):
        if header.count('"') % 2 == 0:
            return header
        header += next(lines, "")
    return first


def _delimiter(first: str, second: str, usual: str) -> str:
    """What divides the columns: what divides the first two rows into as many, the usual one before others."""

    def fits(each: str) -> tuple[bool, bool, int]:
        count = len(fields(first, each))
        return count > 1 and count == len(fields(second or first, each)), each == usual and count > 1, count

    return max(dict.fromkeys([usual, *",;\t|"]), key=fits)


def _records(path: Path, lines: Iterator[str], delimiter: str, count: int) -> Iterator[tuple[int, list[str]]]:
    """(number of the last line, values) of each row, as Python's csv module reads it.

    Between tabs, where few quote, a quote that is not closed is a character like any other; its row goes on for the
    lines that have not all of the `count` columns. Elsewhere it is an error: all rows behind it would be its value.
    """
    if delimiter != "\t":
        yield from _quoted(path, lines, delimiter)
        return
    numbered = enumerate(lines, 1)
    number, line = next(numbered, (0, ""))
    while line:
        held, start, last, inside, size = [line], number, number, _goes_on(line), len(line)
        number, after = next(numbered, (0, ""))
        while after and inside and after.count("\t") != count - 1:
            if (size := size + len(after)) > LINE:
                raise _no_end(path, start)
            held.append(after)
            last, inside = number, _goes_on(f'"{after}')
            number, after = next(numbered, (0, ""))
        if (row := "".join(held)).strip():
            yield last, fields(row, "\t")
        line = after


def _goes_on(line: str) -> bool:
    """Whether a line between tabs ends within quotes."""
    return '"' in line and len(list(csv.reader([line, "next"], delimiter="\t"))) == 1


def _quoted(path: Path, lines: Iterator[str], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    held: list[str] = []  # the lines of a row

    def kept() -> Iterator[str]:
        for line in lines:
            held.append(line)
            yield line

    reader = csv.reader(kept(), delimiter=delimiter)
    try:
        for row in reader:
            if len(held) > 1 and len(list(csv.reader([*held, "next"], delimiter=delimiter))) == 1:
                raise csv.Error("what came next would be a part of it")
            if row and (len(row) > 1 or row[0].strip()):
                yield reader.line_num, row
            held.clear()
    except csv.Error:
        raise _no_end(path, reader.line_num - len(held) + 1) from None


def _no_end(path: Path, number: int) -> UserError:
    return UserError(
        f"{path}:{number}: a quoted value of this row has no end, and takes in all rows after it; close the quote, or "
        'double it ("") where it is part of the value'
    )


def _lines(path: Path, file: Any) -> Iterator[str]:
    number = 0
    try:
        for line in text_lines(file, path):
            number += 1
            yield "\n" if number == 1 and SEPARATOR.fullmatch(line) else line.replace("\0", "")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: expected UTF-8, got byte 0x{error.object[error.start]:02x} after line {number}; convert the file"
        ) from None


def _is_value(cell: str) -> bool:
    """Whether a cell is what no column is called: a number, or a sentence."""
    return not cell or cell.replace(".", "", 1).isdigit() or len(cell) > 40 or len(cell.split()) > 3


def _json(path: Path, known: Callable[[str], bool]) -> Table:
    with open_text(path) as file:
        start = ""
        while not start.strip():
            if not (start := file.read(64)):
                raise UserError(f"{path} is empty; expected JSON lines or an array of objects")
    rows = _array if start.lstrip().startswith("[") else json_rows
    if kind(path) == ".json" and rows is json_rows and (whole := _one_object(path, known)) is not None:
        return whole
    columns = dict.fromkeys(name for _, row in islice(rows(path), 50) for name in row)

    def read(wanted: Sequence[str]) -> Rows:
        return ((number, [row.get(name) for name in wanted]) for number, row in rows(path))

    return Table(path, list(columns), read)


def _one_object(path: Path, known: Callable[[str], bool]) -> Table | None:
    """A file that is one object: id -> text, or id -> object; None where it is JSON lines."""
    with open_text(path) as file:
        whole = file.readline(WHOLE + 1)
        if (found := _parsed(whole)) is None:
            whole += file.read(WHOLE)
            found = _parsed(whole) if len(whole) <= WHOLE else None
        elif any(map(str.strip, text_lines(file, path))) or (isinstance(found, dict) and any(map(known, found))):
            return None
    if len(whole) > WHOLE:
        raise UserError(
            f"{path} is one value of more than {WHOLE >> 20:,} MB; expected JSON lines or an array of objects"
        )
    if not isinstance(found, dict):
        return None
    if list(found.values())[:1] and isinstance(next(iter(found.values())), list):
        raise UserError(f"{path}: expected an array of objects, JSON lines, or id -> text; got lists by name")
    rows = [{"_id": key, **(value if isinstance(value, dict) else {"text": value})} for key, value in found.items()]
    columns = dict.fromkeys(name for row in rows[:50] for name in row)
    return Table(
        path,
        list(columns),
        lambda wanted: ((number, [row.get(name) for name in wanted]) for number, row in enumerate(rows, 1)),
    )


def _parsed(text: str) -> Any:
    """What JSON says; None where it is malformed."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _array(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number from 1, object) of a JSON array of objects, which is read a piece at a time."""
    decode, number = json.JSONDecoder().raw_decode, 0
    with open_text(path) as file:
        text = file.read(PIECE)
        while "[" not in text:
            text = file.read(PIECE)
        at = text.index("[") + 1
        while True:
            while text[at : at + 1] in BETWEEN:
                at += 1
            if text.startswith("]", at):
                if text[at + 1 :].strip() or any(map(str.strip, iter(partial(file.read, PIECE), ""))):
                    raise UserError(f"{path}: expected one array of objects, got more after its {number:,} objects")
                return
            try:
                row, at = decode(text, at)
            except RecursionError:
                raise UserError(f"{path}, object {number + 1}: malformed JSON (too deep)") from None
            except ValueError as error:
                if len(text) - at > LINE:
                    raise UserError(
                        f"{path}, object {number + 1}: it has more than {LINE >> 20} MB, or a quote without an end"
                    ) from None
                cut = getattr(error, "pos", 0) > len(text) - CUT or str(error).startswith("Unterminated string")
                if not (cut and (more := file.read(max(PIECE, len(text) - at)))):
                    message = first_line(error).split(":")[0]
                    raise UserError(f"{path}, object {number + 1}: malformed JSON ({message})") from None
                text, at = text[at:] + more, 0
                continue
            number += 1
            if not isinstance(row, dict):
                raise UserError(f"{path}, object {number}: expected a JSON object, got {type(row).__name__}")
            yield number, row


def _parquet(path: Path) -> Table:
    parquet = _library("pyarrow.parquet", path)
    try:
        columns = list(parquet.read_schema(path).names)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not a readable Parquet file ({first_line(error)})") from None
    if twice := [name for name in columns if columns.count(name) > 1]:
        raise UserError(f"{path} has the column {twice[0]!r} twice; give each a name of its own")

    def read(wanted: Sequence[str]) -> Rows:
        number = 0
        try:
            # By default the whole file is read ahead, and stays in memory
            with parquet.ParquetFile(path, pre_buffer=False, buffer_size=PIECE) as file:
                for batch in file.iter_batches(2048, columns=list(dict.fromkeys(wanted)), use_threads=False):
                    values = {name: batch.column(name).to_pylist() for name in wanted}
                    for row in zip(*(values[name] for name in wanted), strict=True):
                        number += 1
                        yield number, row
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be read after row {number:,} ({first_line(error)})") from None

    return Table(path, columns, read)


def is_hugging_face(path: Path) -> bool:
    """Whether a folder is what `save_to_disk` of the library datasets writes, with splits or without."""
    return any((path / name).is_file() for name in ("dataset_dict.json", "state.json", "dataset_info.json"))


def hugging_face_splits(path: Path) -> dict[str, Path]:
    """Split -> folder of a data set on disk; {} where it has none."""
    if not (path / "dataset_dict.json").is_file():
        return {}
    about = read_json(path / "dataset_dict.json")
    names = about.get("splits") if isinstance(about, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path / 'dataset_dict.json'} names no splits; save the data set again")
    return {name: path / name for name in names}


def _hugging_face(path: Path) -> Table:
    datasets = _library("datasets", path)
    try:
        data = datasets.load_from_disk(str(path))
    except Exception as error:  # a broken folder raises what its libraries like
        raise UserError(f"{path} is not a readable data set on disk ({first_line(error)})") from None

    def read(wanted: Sequence[str]) -> Rows:
        chosen, number = data.select_columns(list(dict.fromkeys(wanted))), 0
        for batch in chosen.iter(4096):
            for row in zip(*(batch[name] for name in wanted), strict=True):
                number += 1
                yield number, row

    return Table(path, list(data.column_names), read)


def _library(name: str, path: Path) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError:
        package = name.split(".")[0]
        raise MissingPackage(f'{path} needs {package}: pip install "retrieval-prompts[files]"') from None

"""Lines of text files, plain or gzipped, their columns, and JSON lines. Knows no field of theirs."""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from retrieval_prompts.data.packed import cut_short, damage, opened
from retrieval_prompts.errors import UserError

LINE, WHOLE = 1 << 26, 1 << 30  # bytes of a line, and of one that is a whole file of JSON
PART = 1 << 22  # bytes that are read at once
WORDS = re.compile(r'(?<!\S)"((?:[^"]|"")*)"(?!\S)|(\S+)')  # quoted, or not


def read_lines(path: Path, *, longest: int = LINE) -> Iterator[tuple[int, str]]:
    """(line number from 1, text) of a UTF-8 file, gzipped if it ends in .gz; blank lines are left out.

    Raises:
        UserError: for bytes that are not UTF-8, for a line of more than `longest` bytes, and for a file that cannot be
            read, is cut short, or unpacks to what no text is packed from (`packed.RATIO`).
    """
    return ((number, line) for number, _, line in read_at(path, longest=longest))


def read_at(path: Path, *, longest: int = LINE) -> Iterator[tuple[int, int, str]]:
    """(line number from 1, byte offset, text); see `read_lines`."""
    offset = 0
    try:
        with opened(path) as file:
            for number, line in enumerate(_lines(file, path, longest), 1):
                start, offset = offset, offset + len(line)
                if number == 1 and line.startswith(codecs.BOM_UTF8):
                    start, line = start + len(codecs.BOM_UTF8), line.removeprefix(codecs.BOM_UTF8)
                if line.strip():
                    try:
                        yield number, start, line.decode()
                    except UnicodeDecodeError as error:
                        at = f"byte 0x{line[error.start]:02x} at column {error.start + 1}"
                        raise UserError(f"{path}:{number}: expected UTF-8, got {at}; convert the file") from None
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except damage() as error:
        raise cut_short(path, error) from None


def read_text(path: Path) -> str:
    """A file that is read at once, such as JSON, whose lines may be as long as all of it; without its blank lines."""
    return "".join(line for _, line in read_lines(path, longest=WHOLE))


def _lines(file: IO[bytes], path: Path, longest: int) -> Iterator[bytes]:
    """Lines with their ends, in bounded memory."""
    number, size = 1, 0
    line: list[bytes] = []  # its parts
    while part := file.readline(PART):
        size += len(part)
        if size > longest:
            raise UserError(f"{path}:{number}: the line has more than {longest >> 20} MB; expected a text a line")
        line.append(part)
        if part.endswith(b"\n") or len(part) < PART:
            yield b"".join(line)
            number, size = number + 1, 0
            line.clear()
    if line:
        yield b"".join(line)


def fields(line: str, separator: str | None) -> list[str]:
    """The columns of a line, with their quotes taken off where they are written as Python's csv module writes them.

    Args:
        separator: None: white space, as much as there is.

    A quote that opens nothing, or is never closed, is a character like any other.

    >>> fields('"d ""1"", new";5";1', ";")
    ['d "1", new', '5"', '1']
    >>> fields('q1 0  "a file.pdf" 1', None)
    ['q1', '0', 'a file.pdf', '1']
    """
    line = line.rstrip("\r\n")
    if '"' not in line:
        return line.split(separator)
    if separator is None:
        return [bare if bare else quoted.replace('""', '"') for quoted, bare in WORDS.findall(line)]
    try:
        return next(csv.reader([line], delimiter=separator, strict=True))
    except csv.Error:
        return line.split(separator)


def json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number from 1, object) of a file of JSON lines; see `read_lines` and `json_object`."""
    return ((number, json_object(line, f"{path}:{number}")) for number, line in read_lines(path))


def json_object(line: str, where: str) -> dict[str, Any]:
    """Raises UserError that begins with `where` for a line that is no JSON object."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = getattr(error, "msg", error)
        raise UserError(f"{where}: expected a JSON object, got malformed JSON ({reason})") from None
    if not isinstance(row, dict):
        raise UserError(f"{where}: expected a JSON object, got {type(row).__name__} {row!r:.40}")
    return row


def string(row: dict[str, Any], key: str, where: str, *, empty: bool = True) -> str:
    """The text of a field.

    Raises:
        UserError: where there is none, and for an empty one unless `empty`.
    """
    if key not in row:
        raise UserError(f'{where}: expected the field "{key}", got only {", ".join(row)[:80] or "an empty object"}')
    value = row[key]
    if not isinstance(value, str):
        hint = f'; write "{key}": "{value}"' if type(value) is int else ""
        raise UserError(f'{where}: "{key}" must be a string, got {type(value).__name__} {value!r:.40}{hint}')
    if not (value or empty):
        raise UserError(f'{where}: "{key}" must not be empty')
    return value


def characters(text: str, name: str, where: str) -> str:
    """The text, if UTF-8 can write it. Raises UserError: JSON's escapes can spell what is not a character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError(f"{where}: {name} holds half of a surrogate pair, which is not a character") from None
    return text

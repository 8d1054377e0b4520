"""Judgements and rankings as plain dictionaries; BEIR's and TREC's qrels files, read and written. Knows no document."""

from __future__ import annotations

import csv
import io
import math
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from retrieval_prompts.data.lines import fields, read_lines
from retrieval_prompts.errors import DataWarning, UserError, few
from retrieval_prompts.files import check_listed, list_digest, write_bytes

Qrels = dict[str, dict[str, int]]  # query id -> document id -> grade; above 0 is relevant
Run = dict[str, dict[str, float]]  # query id -> document id -> score; higher is better
QRELS_HEADER = ["query-id", "corpus-id", "score"]
GRADE = re.compile(
    r"[+-]?[0-9]{1,4}(\.[0-9]*)?", re.ASCII
)  # trec_eval counts grades in an array as long as the highest
SEPARATORS = {"\t": "tabs", None: "white space", ",": "commas", ";": "semicolons"}
SPAN = 20  # lines that a quoted field may go on for
# What headers call the columns -> BEIR's names
NAMES = {
    **dict.fromkeys(("queryid", "qid", "query", "topic", "topicid", "querynumber"), "query-id"),
    **dict.fromkeys(
        ("corpusid", "docid", "documentid", "docno", "did", "pid", "passageid", "doc", "document"), "corpus-id"
    ),
    **dict.fromkeys(("score", "relevance", "rel", "label", "grade", "judgement", "judgment"), "score"),
}


def read_qrels(path: Path | str, split: str = "test") -> Qrels:
    """Read a qrels file, gzipped if its name ends in .gz, or the one of a split of a BEIR folder; see `parse_qrels`.

    Raises:
        UserError: when there are no judgements, or there is no such file or split.
    """
    path = _of_split(Path(path), split) if Path(path).is_dir() else Path(path)
    check_listed(path)
    if not (qrels := parse_qrels(path)):
        raise UserError(f"{path} holds no judgements")
    return qrels


def parse_qrels(path: Path, *, keep: Callable[[str, str], bool] = lambda query, document: True) -> Qrels:
    """Read a qrels file, in the order of its lines.

    BEIR: query, document, grade. TREC: query, 0, document, grade. With a header that names the columns or without one;
    tabs, white space or commas between; any field may be quoted, as Python's csv module does it, so that what
    `beir` writes is read as `beir` reads it. The first line tells which of these it is.

    Args:
        keep: called with the query and the document of each line; the line is left out where it says no.

    Grades are integers; others are rounded, 0.5 up, and counted in one DataWarning.

    Raises:
        UserError: with file and line for a line of another shape, for a grade that is no number of at most 4 digits,
            and for two grades of one document.
    """
    lines = read_lines(path)
    if (first := next(lines, None)) is None:
        raise UserError(f"{path} holds no judgements")
    form, header = _form(first[1], f"{path}:{first[0]}")
    if not header:
        lines = chain([first], lines)
    qrels: Qrels = {}
    rounded: list[str] = []
    for number, line in lines:
        query, document, score = _judgement(line, lines, form, f"{path}:{number}")
        if not keep(query, document):
            continue
        grade = math.floor(score + 0.5)
        if grade != score:
            rounded.append(f"{score:g} on line {number}")
        earlier = qrels.setdefault(query, {}).setdefault(document, grade)
        if earlier != grade:
            raise UserError(
                f"{path}:{number}: document {document!r} has grade {grade} for query {query!r} here, and"
                f" {earlier} on an earlier line"
            )
    if rounded:
        message = f"{path}: grades that are not integers, rounded (0.5 and more is 1): {len(rounded)} ({few(rounded)})"
        warnings.warn(message, DataWarning, stacklevel=2)
    return qrels


@dataclass(frozen=True)
class _Form:
    """How a qrels file is written.

    Args:
        separator: None: white space.
        count: the columns of a line.
        places: of query, document and grade.
    """

    separator: str | None
    count: int
    places: tuple[int, int, int]

    def __str__(self) -> str:
        if self.count == 4:
            return "TREC's 4 columns \"query 0 document grade\" (or BEIR's 3: query, document, grade)"
        return f"{self.count} columns with {SEPARATORS[self.separator]} between ({', '.join(QRELS_HEADER)})"


def _form(line: str, where: str) -> tuple[_Form, bool]:
    """How a file with this first line is written, and whether the line is a header. Raises UserError."""
    found: list[_Form] = []
    for separator in SEPARATORS:
        columns = fields(line, separator)
        names = [NAMES.get(re.sub(r"[\W_]", "", column).lower()) for column in columns]
        if len(names) >= 3 and all(names.count(name) == 1 for name in QRELS_HEADER):
            query, document, grade = map(names.index, QRELS_HEADER)
            return _Form(separator, len(names), (query, document, grade)), True
        if separator is None and all(column.endswith((",", ";")) for column in columns[:-1]):
            continue  # a space behind each comma
        if len(columns) in (3, 4):
            found.append(_Form(separator, len(columns), (0, len(columns) - 2, len(columns) - 1)))
            if GRADE.fullmatch(columns[-1].strip()):
                return found[-1], False
    if not found:
        expected = "BEIR's 3 columns (query-id, corpus-id, score) or TREC's 4 columns (query 0 document grade)"
        raise UserError(f"{where}: expected {expected}, got {len(fields(line, None))}: {line.strip()!r:.60}")
    return found[0], False


def _judgement(line: str, more: Iterator[tuple[int, str]], form: _Form, where: str) -> tuple[str, str, float]:
    """(query, document, grade) of a line, and of the lines after it where a quoted field goes on there."""
    columns = fields(line, form.separator)
    if len(columns) != form.count and form.separator is not None and form.separator not in line:
        columns = fields(line, None)
    for _ in range(SPAN if line.count('"') % 2 else 0):
        if len(columns) == form.count:
            break
        line += next(more, (0, ""))[1]
        columns = fields(line, form.separator)
    if len(columns) != form.count:
        raise UserError(f"{where}: expected {form}, got {len(columns)}: {line.strip()!r:.60}")
    spaced = form.separator in (",", ";")
    query, document, grade = (columns[place].strip() if spaced else columns[place] for place in form.places)
    if not GRADE.fullmatch(grade.strip()):
        raise UserError(f"{where}: expected a grade of at most 4 digits, got {grade!r}")
    return query, document, float(grade)


def write_qrels(path: Path, qrels: Qrels) -> None:
    """Write judgements as BEIR's qrels/<split>.tsv, atomically, and their digest into SHA256SUMS beside it.

    An id with a tab, a quote or a line break is quoted.
    """
    text = io.StringIO(newline="")
    rows = csv.writer(text, delimiter="\t", lineterminator="\n")
    rows.writerow(QRELS_HEADER)
    rows.writerows((query, document, grade) for query, own in qrels.items() for document, grade in own.items())
    content = text.getvalue().encode()
    write_bytes(path, content)
    list_digest(path, content)


def _of_split(folder: Path, split: str) -> Path:
    for ending in ("tsv", "tsv.gz", "csv", "csv.gz"):
        if (path := folder / "qrels" / f"{split}.{ending}").is_file():
            return path
    there = sorted({re.split(r"\.[ct]sv", file.name)[0] for file in (folder / "qrels").glob("[!.]*.[ct]sv*")})
    has = f"it has {', '.join(there)}; choose one with --split" if there else "it holds no qrels/<split>.tsv"
    raise UserError(f"{folder} has no judgements for the split {split!r}: {has}")

"""TREC run files, written and read."""

from __future__ import annotations

import gzip
import math
from pathlib import Path

from retrieval_prompts.data.ids import breaks, original, portable
from retrieval_prompts.data.judgements import Run
from retrieval_prompts.data.lines import read_lines
from retrieval_prompts.errors import UserError
from retrieval_prompts.evaluation.metrics import best_first, check_finite
from retrieval_prompts.files import check_listed, list_digest, write_bytes

MARK = "%"  # of an encoded id, in the second column


def write_run(path: Path | str, run: Run, tag: str) -> None:
    """Write a TREC run file, atomically: lines "query Q0 document rank score tag", gzipped if the name ends in .gz.

    Queries keep their order, documents are sorted as trec_eval sorts them; scores are written in full. A query without
    documents leaves no line. An id with white space, which divides the columns, is percent-encoded, and the second
    column, which nothing else reads, says so: "%Q0" for the query, "Q0%" for the document, "%Q0%" for both. So
    `read_run` gives the same ids, and an id with a "%" of its own stays as it is.

    SHA256SUMS beside it gets its digest, by which `read_run` knows what was cut or changed since.

    Raises:
        UserError: for an empty id or tag, and for a score that is not a finite number.
    """
    path = Path(path)
    check_finite(run)
    if not all({tag, *run, *(id for scores in run.values() for id in scores)}):
        raise UserError(f"{path}: a TREC run cannot hold an empty id or tag")
    blocks = []  # a query each: millions of lines would be as many objects
    for query, scores in run.items():
        ranked = enumerate(best_first(scores), 1)
        before = f"{_column(query)} {MARK if breaks(query) else ''}Q0"
        lines = (
            f"{before}{MARK if breaks(id) else ''} {_column(id)} {rank} {float(score)!r} {portable(tag)}\n"
            for rank, (id, score) in ranked
        )
        blocks.append("".join(lines).encode())
    content = b"".join(blocks)
    content = gzip.compress(content, mtime=0) if path.suffix == ".gz" else content
    write_bytes(path, content)
    list_digest(path, content)


def _column(id: str) -> str:
    return portable(id) if breaks(id) else id


def read_run(path: Path | str) -> Run:
    """Read a TREC run file, gzipped if it ends in .gz. The rank and tag columns are not used: scores decide.

    Ids are those that `write_run` was given; those of a run from elsewhere are taken as they are.

    Raises:
        UserError: with file and line for a line without 6 columns, a score that is not a finite number, and a document
            that comes twice for a query; and for a file that SHA256SUMS beside it lists with another digest.
    """
    check_listed(Path(path))
    run: Run = {}
    for number, line in read_lines(Path(path)):
        columns = line.split()
        if len(columns) != 6:
            raise UserError(
                f'{path}:{number}: expected 6 columns "query Q0 document rank score tag", got {len(columns)}'
            )
        query, mark, document, _, score, _ = columns
        if MARK in mark:
            query = original(query) if mark.startswith(MARK) else query
            document = original(document) if mark.endswith(MARK) else document
        value = _number(score)
        if not math.isfinite(value):
            raise UserError(f"{path}:{number}: expected a finite number as the score, got {score!r}")
        if document in run.setdefault(query, {}):
            raise UserError(f"{path}:{number}: document {document!r} was listed for query {query!r} already")
        run[query][document] = value
    return run


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan

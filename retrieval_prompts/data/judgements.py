"""Judgements and rankings as plain dictionaries; BEIR's and TREC's qrels files, read and written. Knows no document."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import chain
from pathlib import Path

from retrieval_prompts.data.lines import read_lines
from retrieval_prompts.errors import UserError
from retrieval_prompts.files import check_listed, list_digest, write_bytes

Qrels = dict[str, dict[str, int]]  # query id -> document id -> grade; above 0 is relevant
Run = dict[str, dict[str, float]]  # query id -> document id -> score; higher is better
QRELS_HEADER = ["query-id", "corpus-id", "score"]
GRADE = re.compile(r"-?[0-9]{1,4}", re.ASCII)  # trec_eval counts grades in an array as long as the highest


def read_qrels(path: Path | str, split: str = "test") -> Qrels:
    """Read a qrels file, gzipped if its name ends in .gz, or the one of a split of a BEIR folder; see `parse_qrels`.

    Raises UserError when there are no judgements, or there is no such file or split.
    """
    path = _of_split(Path(path), split) if Path(path).is_dir() else Path(path)
    check_listed(path)
    qrels = parse_qrels(path)
    if not qrels:
        raise UserError(f"{path} holds no judgements")
    return qrels


def parse_qrels(
    path: Path, *, trec: bool = True, keep: Callable[[str, str], bool] = lambda query, document: True
) -> Qrels:
    """Read a qrels file, in the order of its lines.

    BEIR: the header "query-id corpus-id score", tabs between columns. TREC: lines "query 0 document grade", white space
    between. The header tells them apart.

    Args:
        trec: whether TREC's format may be; without, the header must be there.
        keep: called with the query and the document of each line; the line is left out where it says no.

    Raises UserError with file and line for a line of another shape, for a grade that is no integer of at most 4 digits,
    and for two grades of one document.
    """
    lines = read_lines(path)
    first = next(lines, None)
    header = first[1].rstrip("\r\n").split("\t") if first else ["an empty file"]
    beir = header == QRELS_HEADER
    if not (beir or trec):
        expected, came = r"\t".join(QRELS_HEADER), r"\t".join(header)[:80]
        raise UserError(f"{path}:{first[0] if first else 1}: expected the header {expected}, got {came}")
    if first and not beir:
        lines = chain([first], lines)
    qrels: Qrels = {}
    for number, line in lines:
        columns = line.rstrip("\r\n").split("\t") if beir else line.split()
        if len(columns) != (3 if beir else 4):
            expected = (
                f"3 columns with tabs between ({', '.join(QRELS_HEADER)})"
                if beir
                else "TREC's 4 columns \"query 0 document grade\" (or BEIR's 3, under their header)"
            )
            raise UserError(f"{path}:{number}: expected {expected}, got {len(columns)}: {line.strip()!r:.60}")
        query, document, grade = columns[0], *columns[-2:]
        if not GRADE.fullmatch(grade):
            raise UserError(f"{path}:{number}: expected an integer grade of at most 4 digits, got {grade!r}")
        if not keep(query, document):
            continue
        earlier = qrels.setdefault(query, {}).setdefault(document, int(grade))
        if earlier != int(grade):
            raise UserError(
                f"{path}:{number}: document {document!r} has grade {int(grade)} for query {query!r} here, and"
                f" {earlier} on an earlier line"
            )
    return qrels


def write_qrels(path: Path, qrels: Qrels) -> None:
    """Write judgements as BEIR's qrels/<split>.tsv, atomically, and their digest into SHA256SUMS beside it."""
    rows = ["\t".join(QRELS_HEADER)]
    rows += [f"{query}\t{document}\t{grade}" for query, own in qrels.items() for document, grade in own.items()]
    content = ("\n".join(rows) + "\n").encode()
    write_bytes(path, content)
    list_digest(path, content)


def _of_split(folder: Path, split: str) -> Path:
    for path in (folder / "qrels" / f"{split}.tsv", folder / "qrels" / f"{split}.tsv.gz"):
        if path.is_file():
            return path
    there = sorted({file.name.split(".tsv")[0] for file in (folder / "qrels").glob("[!.]*.tsv*")})
    has = f"it has {', '.join(there)}; choose one with --split" if there else "it holds no qrels/<split>.tsv"
    raise UserError(f"{folder} has no judgements for the split {split!r}: {has}")

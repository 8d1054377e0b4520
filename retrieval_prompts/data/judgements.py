"""Judgements and rankings as plain dictionaries, and BEIR's and TREC's qrels files. Knows no document."""

from __future__ import annotations

import re
from pathlib import Path

from retrieval_prompts.data.lines import read_lines
from retrieval_prompts.errors import UserError

Qrels = dict[str, dict[str, int]]  # query id -> document id -> grade; above 0 is relevant
Run = dict[str, dict[str, float]]  # query id -> document id -> score; higher is better
QRELS_HEADER = ["query-id", "corpus-id", "score"]
GRADE = re.compile(r"-?[0-9]{1,4}", re.ASCII)  # trec_eval counts grades in an array as long as the highest


def read_qrels(path: Path | str, split: str = "test") -> Qrels:
    """Read a qrels file, gzipped if its name ends in .gz, or the one of a split of a BEIR folder.

    BEIR: the header "query-id corpus-id score", tabs between columns. TREC: lines "query 0 document grade", white space
    between. The header tells them apart.

    Raises UserError with file and line for a line of another shape, for a grade that is no integer of at most 4 digits,
    and for two grades of one document; and when there are no judgements or there is no such file or split.
    """
    path = _of_split(Path(path), split) if Path(path).is_dir() else Path(path)
    qrels: Qrels = {}
    beir = False
    for number, line in read_lines(path):
        columns = line.rstrip("\r\n").split("\t")
        if columns == QRELS_HEADER and not qrels and not beir:
            beir = True
            continue
        if not beir:
            columns = line.split()
        if len(columns) != (3 if beir else 4):
            expected = (
                "3 columns with tabs between"
                if beir
                else "TREC's 4 columns \"query 0 document grade\" (or BEIR's 3, under their header)"
            )
            raise UserError(f"{path}:{number}: expected {expected}, got {len(columns)}: {line.strip()!r:.60}")
        query, document, grade = columns[0], *columns[-2:]
        if not GRADE.fullmatch(grade):
            raise UserError(f"{path}:{number}: expected an integer grade of at most 4 digits, got {grade!r}")
        earlier = qrels.setdefault(query, {}).setdefault(document, int(grade))
        if earlier != int(grade):
            raise UserError(
                f"{path}:{number}: document {document!r} has grade {int(grade)} for query {query!r} here, and"
                f" {earlier} on an earlier line"
            )
    if not qrels:
        raise UserError(f"{path} holds no judgements")
    return qrels


def _of_split(folder: Path, split: str) -> Path:
    for path in (folder / "qrels" / f"{split}.tsv", folder / "qrels" / f"{split}.tsv.gz"):
        if path.is_file():
            return path
    there = sorted({file.name.split(".tsv")[0] for file in (folder / "qrels").glob("[!.]*.tsv*")})
    has = f"it has {', '.join(there)}; choose one with --split" if there else "it holds no qrels/<split>.tsv"
    raise UserError(f"{folder} has no judgements for the split {split!r}: {has}")

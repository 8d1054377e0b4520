"""Judgements read from both formats and written in BEIR's, and what is malformed."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path
from typing import Literal

import pytest

from retrieval_prompts.data.judgements import Qrels, read_qrels, write_qrels
from retrieval_prompts.errors import UserError

BEIR = "query-id\tcorpus-id\tscore\nq 1\td 1\t1\nq 1\td2\t0\n\nq2\td1\t2\n"
TREC = "q1 0 d1 1\nq1\t0\td2  0\r\n\nq2 Q0 d1 -2\n"


@pytest.mark.parametrize("gz", [False, True])
def test_both_formats(tmp_path: Path, gz: bool) -> None:
    for name, text, expected in (
        ("test.tsv", BEIR, {"q 1": {"d 1": 1, "d2": 0}, "q2": {"d1": 2}}),
        ("qrels.txt", TREC, {"q1": {"d1": 1, "d2": 0}, "q2": {"d1": -2}}),
    ):
        path = tmp_path / (f"{name}.gz" if gz else name)
        path.write_bytes(gzip.compress(text.encode()) if gz else b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
        assert read_qrels(path) == expected
        assert list(read_qrels(path)) == list(expected)


def test_the_split_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "dev.tsv").write_text(BEIR)
    (tmp_path / "qrels" / "test.tsv.gz").write_bytes(gzip.compress(BEIR.replace("\t2", "\t1").encode()))
    assert read_qrels(tmp_path)["q2"] == {"d1": 1}
    assert read_qrels(tmp_path, "dev")["q2"] == {"d1": 2}
    with pytest.raises(
        UserError, match=r"no judgements for the split 'tst': it has dev, test; choose one with --split"
    ):
        read_qrels(tmp_path, "tst")
    with pytest.raises(UserError, match=r"for the split 'test': it holds no qrels/<split>\.tsv"):
        read_qrels(tmp_path / "qrels")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q1\td1\n", r":1: expected BEIR's 3 columns \(query-id, .*\) or TREC's 4 columns .* got 2: "),
        ("q1 0 d1 1\nquery-id\tcorpus-id\tscore\n", ":2: expected TREC's 4 columns .* got 3"),
        (
            "query-id\tcorpus-id\tscore\nq1 0 d1 1\n",
            r":2: expected 3 columns with tabs between \(query-id, .*\), got 4",
        ),
        (
            "query-id\tcorpus-id\tscore\nq1\td1\t1\t1\n",
            r":2: expected 3 columns with tabs between \(query-id, .*\), got 4",
        ),
        ("q1 0 d1 1 tag extra\n", ":1: expected BEIR's 3 columns .* got 6"),
        ("q1 0 d1 yes\n", ":1: expected a grade of at most 4 digits, got 'yes'"),
        ("q1 0 d1 12345\n", ":1: expected a grade of at most 4 digits, got '12345'"),
        ("q1 0 d1 1\nq1 0 d1 0\n", ":2: document 'd1' has grade 0 for query 'q1' here, and 1 on an earlier line"),
        ("", " holds no judgements"),
        ("query-id\tcorpus-id\tscore\n", " holds no judgements"),
    ],
)
def test_malformed_judgements(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "qrels"
    path.write_text(text)
    with pytest.raises(UserError, match=f"qrels{message}"):
        read_qrels(path)


def test_a_judgement_may_come_twice(tmp_path: Path) -> None:
    (tmp_path / "qrels").write_text("q1 0 d1 1\nq1 0 d1 1\n")
    assert read_qrels(tmp_path / "qrels") == {"q1": {"d1": 1}}
    with pytest.raises(UserError, match="absent does not exist"):
        read_qrels(tmp_path / "absent")


@pytest.mark.parametrize("name", ["test.tsv", "deep/test.tsv"])
def test_what_is_written_is_read(tmp_path: Path, name: str) -> None:
    qrels: Qrels = {"q 1": {"d 1": 1, "d2": 0}, "q2": {"d1": -2}}
    (tmp_path / name).parent.mkdir(exist_ok=True)
    write_qrels(tmp_path / name, qrels)
    assert (tmp_path / name).read_text() == "query-id\tcorpus-id\tscore\nq 1\td 1\t1\nq 1\td2\t0\nq2\td1\t-2\n"
    assert read_qrels(tmp_path / name) == qrels


ODD: Qrels = {
    "q 1": {"a\tb": 1, 'say "no"': 0, '"quoted"': 2, '"open': 1, "two\nlines\n\nmore": 3, "r\r": 1, '5"': -1, "a,b": 1},
    " q": {"\u3000": 1, "ends ": 0},
}


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_what_the_csv_module_writes_is_read(tmp_path: Path, quoting: Literal[0, 1, 2], end: str) -> None:
    with (tmp_path / "test.tsv").open("w", newline="", encoding="utf-8-sig") as file:
        rows = csv.writer(file, delimiter="\t", quoting=quoting, lineterminator=end)
        rows.writerow(["query-id", "corpus-id", "score"])
        rows.writerows((query, id, float(grade)) for query, own in ODD.items() for id, grade in own.items())
    expected = {query: {id.replace("\n\n", "\n"): grade for id, grade in own.items()} for query, own in ODD.items()}
    assert read_qrels(tmp_path / "test.tsv") == expected  # an id's blank line is lost


def test_odd_ids_are_written_as_they_are_read(tmp_path: Path) -> None:
    qrels = {"q": {id: 1 for own in ODD.values() for id in own if "\n\n" not in id}}
    write_qrels(tmp_path / "qrels", qrels)
    assert read_qrels(tmp_path / "qrels") == qrels


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('"q 1" 0 "a file.pdf" 1\nq2   0 d2 +1\n', {"q 1": {"a file.pdf": 1}, "q2": {"d2": 1}}),
        ('"q""1"\t0\t"d1"\t"2"\n', {'q"1': {"d1": 2}}),
        ('q1\t"d1\t1\nq1\td"2"\t1\n', {"q1": {'"d1': 1, 'd"2"': 1}}),  # quotes that quote nothing
        ("qid iter docno rel\nq1 0 d1 1\n", {"q1": {"d1": 1}}),
        ("Query_ID;Doc_ID;Label\nq1;d1;1\n", {"q1": {"d1": 1}}),
        ("q1,d1,1\nq1,d2,0\n", {"q1": {"d1": 1, "d2": 0}}),
        ("q1, d1, 1\nq1, d 2, 0\n", {"q1": {"d1": 1, "d 2": 0}}),
        ("q 1\td 1\t1\n", {"q 1": {"d 1": 1}}),
    ],
)
def test_columns_are_told_by_the_first_line(tmp_path: Path, text: str, expected: Qrels) -> None:
    (tmp_path / "qrels").write_text(text)
    assert read_qrels(tmp_path / "qrels") == expected

"""Judgements read from both formats and written in BEIR's, and what is malformed."""

from __future__ import annotations

import gzip
from pathlib import Path

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
        ("q1\td1\t1\n", ":1: expected TREC's 4 columns .* got 3: "),
        ("q1 0 d1 1\nquery-id\tcorpus-id\tscore\n", ":2: expected TREC's 4 columns .* got 3"),
        (
            "query-id\tcorpus-id\tscore\nq1 0 d1 1\n",
            r":2: expected 3 columns with tabs between \(query-id, .*\), got 1",
        ),
        (
            "query-id\tcorpus-id\tscore\nq1\td1\t1\t1\n",
            r":2: expected 3 columns with tabs between \(query-id, .*\), got 4",
        ),
        ("q1 0 d1 1 tag extra\n", ":1: expected TREC's 4 columns .* got 6"),
        ("q1 0 d1 yes\n", ":1: expected an integer grade of at most 4 digits, got 'yes'"),
        ("q1 0 d1 0.5\n", ":1: expected an integer grade of at most 4 digits, got '0.5'"),
        ("q1 0 d1 12345\n", ":1: expected an integer grade of at most 4 digits, got '12345'"),
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

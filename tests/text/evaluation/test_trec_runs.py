"""Run files against what was written."""

from __future__ import annotations

import gzip
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from retrieval_prompts.data.judgements import Run
from retrieval_prompts.errors import UserError
from retrieval_prompts.evaluation import trec_runs


def test_run_files_are_sorted_and_round_trip(tmp_path: Path) -> None:
    run: Run = {"q2": {"a": 0.1, "b": 1 / 3, "c": 0.1}, "q1": {"ä": -2e-9}}
    path = tmp_path / "deep" / "run.trec"
    trec_runs.write_run(path, run, "frozen")
    assert path.read_text(encoding="utf-8").splitlines() == [
        "q2 Q0 b 1 0.3333333333333333 frozen",
        "q2 Q0 c 2 0.1 frozen",
        "q2 Q0 a 3 0.1 frozen",
        "q1 Q0 ä 1 -2e-09 frozen",
    ]
    assert trec_runs.read_run(path) == run
    trec_runs.write_run(tmp_path / "run.trec.gz", run, "frozen")
    assert gzip.decompress((tmp_path / "run.trec.gz").read_bytes()) == path.read_bytes()
    assert trec_runs.read_run(str(tmp_path / "run.trec.gz")) == run
    assert sorted(file.name for file in path.parent.iterdir()) == ["SHA256SUMS", "run.trec"]  # nothing temporary


@pytest.mark.parametrize("name", ["run.trec", "run.trec.gz"])
def test_a_run_that_was_cut_or_changed_is_refused_one_from_elsewhere_is_not(name: str, tmp_path: Path) -> None:
    run: Run = {f"q{query}": {f"d{document}": 1.0 / (1 + document) for document in range(5)} for query in range(4)}
    path = tmp_path / name
    trec_runs.write_run(path, run, "frozen")
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:]):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=f"^{path} was changed or cut after it was written"):
            trec_runs.read_run(path)
    path.write_bytes(whole)
    (tmp_path / "SHA256SUMS").write_bytes((tmp_path / "SHA256SUMS").read_bytes().replace(b"run", b"other"))
    assert trec_runs.read_run(path) == run
    (tmp_path / "SHA256SUMS").unlink()
    assert trec_runs.read_run(path) == run


def test_a_run_from_elsewhere_is_read_by_its_scores(tmp_path: Path) -> None:
    path = tmp_path / "run"
    path.write_text("q\tQ0\tb\t0\t1\tx\n\nq Q0 a 9 2.5 x\r\n")
    assert trec_runs.read_run(path) == {"q": {"b": 1.0, "a": 2.5}}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("q Q0 b 2 1.0", "expected 6 columns .* got 5"),
        ("q Q0 b 2 1.0 x y", "expected 6 columns .* got 7"),
        ("q Q0 b 2 high x", "expected a finite number as the score, got 'high'"),
        ("q Q0 b 2 nan x", "expected a finite number as the score, got 'nan'"),
        ("q Q0 a 2 0.5 x", "document 'a' was listed for query 'q' already"),
    ],
)
def test_a_bad_run_line_is_named_by_file_and_line(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "run"
    path.write_text(f"q Q0 a 1 1.0 x\n{line}\n")
    with pytest.raises(UserError, match=f"run:2: {message}"):
        trec_runs.read_run(path)


ODD = [
    "report 2023.pdf",
    "report%202023.pdf",
    "100%",
    "a\tb",
    "two\nlines",
    "\u3000",
    "\ufeffq",
    "%",
    "d\0",
    "%Q0",
    '"x"',
]


@pytest.mark.parametrize("name", ["run.trec", "run.trec.gz"])
def test_any_id_is_read_back(tmp_path: Path, name: str) -> None:
    run: Run = {query: {id: float(-at) for at, id in enumerate(ODD)} for query in ODD}
    trec_runs.write_run(tmp_path / name, run, "my run")
    assert trec_runs.read_run(tmp_path / name) == run


def test_what_would_break_the_columns_is_encoded_and_marked(tmp_path: Path) -> None:
    run: Run = {"q": {"a b%": 4.0, "<dbpedia:%22Love%22>": 3.0}, "q 1": {"d e": 2.0, "d": 1.0}}
    trec_runs.write_run(tmp_path / "run", run, "my run")
    assert (tmp_path / "run").read_text().splitlines() == [
        "q Q0% a%20b%25 1 4.0 my%20run",
        "q Q0 <dbpedia:%22Love%22> 2 3.0 my%20run",
        "q%201 %Q0% d%20e 1 2.0 my%20run",
        "q%201 %Q0 d 2 1.0 my%20run",
    ]


def test_ids_of_a_run_from_elsewhere_are_taken_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("q%201 Q0 http://a.org/my%20page 1 2.5 x\n")
    assert trec_runs.read_run(tmp_path / "run") == {"q%201": {"http://a.org/my%20page": 2.5}}


@pytest.mark.parametrize(
    "write",
    [
        lambda path: trec_runs.write_run(path, {"": {"d": 1.0}}, "x"),
        lambda path: trec_runs.write_run(path, {"q": {"": 1.0}}, "x"),
        lambda path: trec_runs.write_run(path, {"q": {"d": 1.0}}, ""),
    ],
)
def test_empty_ids_are_refused(tmp_path: Path, write: Callable[[Path], None]) -> None:
    with pytest.raises(UserError, match=r"a TREC run cannot hold an empty id or tag"):
        write(tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_a_run_with_a_score_that_is_no_number_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is inf, not a finite number"):
        trec_runs.write_run(tmp_path / "run", {"q": {"d": math.inf}}, "x")

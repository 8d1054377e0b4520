"""The command `compare` as a user meets it: files of any tool, several data sets, what it prints and writes."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import typer
from command_line import Command, command_line

from retrieval_prompts.cli import console
from retrieval_prompts.cli.commands.tuning.compare import compare

QUERIES = 12


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """Runs `compare` in an empty folder."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(compare)
    monkeypatch.chdir(tmp_path)
    return command_line("compare", lambda: console.run(app), monkeypatch, capsys, columns=200)


def write_qrels(path: Path, queries: int = QUERIES) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [f"q{i}\tyes\t1\nq{i}\tno\t0\n" for i in range(queries)]
    path.write_text("query-id\tcorpus-id\tscore\n" + "".join(rows))
    return path


def write_run(path: Path, right: int, queries: int = QUERIES, rest: str = "no") -> Path:
    """The relevant document first for so many queries, else second, behind `rest`."""
    lines = [f"q{i} Q0 yes 1 1.0 x\nq{i}\tQ0\t{rest}\t2\t{0 if i < right else 2}\tx\n" for i in range(queries)]
    path.parent.mkdir(parents=True, exist_ok=True)
    content = "".join(lines).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.fixture
def files(tmp_path: Path) -> list[object]:
    """The arguments of a comparison: frozen has 3 of 12 right, tuned 11."""
    qrels = write_qrels(tmp_path / "scifact" / "qrels" / "test.tsv")
    a, b = write_run(tmp_path / "frozen.trec", 3), write_run(tmp_path / "tuned.run.gz", 11)
    return [a, b, "--qrels", qrels]


def test_what_it_prints(command: Command, files: list[object]) -> None:
    done = command(*files, "--metric", "mrr@10")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(
        "scifact: 12 judged queries\n"
        "  frozen: all 12 judged queries, 2 documents each; of the top 10, 100.0 % are judged\n"
        "  tuned: all 12 judged queries, 2 documents each; of the top 10, 100.0 % are judged\n"
    )
    row = next(line for line in done.out.splitlines() if line.startswith("│ mrr@10"))
    assert [cell.strip() for cell in row.strip("│").split("│")][1:3] == ["62.5", "95.8"]
    found = " ".join(done.out.split())
    assert "mrr@10: tuned is better than frozen by 33.3 points, 95.8 against 62.5 (95 % interval " in found
    assert "p = 0.0078); better on 8 of 12 queries, worse on 0, the same on 4." in found


def test_the_result_for_machines(command: Command, files: list[object]) -> None:
    done = command(*files, "--metric", "mrr@10,recall@1", "--metric", "mrr@10", "--json", "-", "--names", "A, B")
    found = json.loads(done.out)
    assert "scifact: 12 judged queries" in done.err
    assert (found["a"]["name"], found["b"]["name"], found["matters"]) == ("A", "B", 0.01)
    assert (found["correction"], found["identical_dropped"], found["averages"]) == ("holm", True, {})
    (dataset,) = found["datasets"].values()
    assert (dataset["queries"], dataset["judgements_not_relevant"]) == (12, 12)
    assert dataset["rankings"]["b"] == {
        "missing": 0,
        "strangers": 0,
        "depth": [2, 2.0, 2],
        "identical": 0,
        "identical_relevant": 0,
        "judged": 1.0,
    }
    assert list(dataset["metrics"]) == ["mrr@10", "recall@1"]
    mrr = dataset["metrics"]["mrr@10"]
    assert (mrr["a"], mrr["verdict"], mrr["p_value"], mrr["p_adjusted"]) == (0.625, "different", 2 / 2**8, None)
    assert mrr["b"] == pytest.approx(11.5 / 12) and mrr["rank_biserial"] == 1.0
    assert mrr["d_z"] == pytest.approx((1 / 3) / mrr["deviation"])
    for name in ("p_t", "p_wilcoxon", "detectable", "judged_only", "difference", "helped", "hurt", "unchanged", "ci95"):
        assert mrr[name] is not None
    assert found["sentences"][0].startswith("mrr@10: B is better than A by 33.3 points")
    assert found["notes"][0].startswith("A holds at most 2 documents a query, but mrr@10 looks at 10")


def test_all_tests_beside_each_other(command: Command, files: list[object]) -> None:
    assert "Wilcoxon" not in command(*files, "--metric", "mrr@10").out
    done = command(*files, "--metric", "mrr@10", "--tests", "all", "--json", "found.json")
    rows = [line for line in done.out.splitlines() if line.startswith("│ mrr@10")]
    found = json.loads(Path("found.json").read_text())["datasets"]["scifact"]["metrics"]["mrr@10"]
    assert [cell.strip() for cell in rows[1].strip("│").split("│")] == [
        "mrr@10",
        "0.0078",
        f"{found['p_t']:.4f}",
        f"{found['p_wilcoxon']:.4f}",
        f"{found['d_z']:+.2f}",
        "+1.00",
    ]


def test_files_it_writes(command: Command, files: list[object]) -> None:
    outputs = ["--per-query", "q.csv", "--markdown", "m.md", "--latex", "l.tex"]
    done = command(*files, "--metric", "mrr@10,recall@1", *outputs)
    assert done.out.endswith("written: q.csv\nwritten: m.md\nwritten: l.tex\n")
    with Path("q.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * QUERIES
    assert rows[3] == {
        "dataset": "scifact",
        "query": "q3",
        "metric": "mrr@10",
        "frozen": "0.5",
        "tuned": "1.0",
        "difference": "0.5",
    }
    assert (
        Path("m.md").read_text().splitlines()[2].startswith("| mrr@10   |     62.5 | **95.8** | +33.3 [+20.8, +45.8] |")
    )
    assert r"\textbf{95.8}" in Path("l.tex").read_text() and r"[95 \%]" in Path("l.tex").read_text()
    again = command(*files, *outputs)
    assert again.code == 2 and "q.csv exists already; choose another name or pass --overwrite" in again.err
    assert command(*files, *outputs, "--overwrite").code == 0


# --- several data sets --------------------------------------------------------------------------------------------


def several(right: dict[str, int]) -> list[object]:
    for name, count in right.items():
        write_qrels(Path("data") / name / "qrels" / "test.tsv")
        write_run(Path("out") / f"{name}.frozen.trec", 3)
        write_run(Path("out") / f"{name}.tuned.trec.gz", count)
    return [
        "out/{}.frozen.trec",
        "out/{}.tuned.trec.gz",
        "--qrels",
        "data/{}/qrels/test.tsv",
        "--datasets",
        ", ".join(right),
        "--metric",
        "mrr@10",
    ]


def test_holm_over_data_sets(command: Command) -> None:
    arguments = several({"one": 11, "two": 9, "three": 3})
    done = command(*arguments, "--json", "found.json")
    assert done.code == 0
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in done.out.splitlines() if line[0:1] == "│"]
    assert [row[0] for row in rows] == ["one", "two", "three"]
    assert [row[4:6] for row in rows] == [["0.0078", "0.0234"], ["0.0312", "0.0625"], ["1.0000", "1.0000"]]
    assert "p (Holm)" in done.out
    assert "\none, mrr@10: tuned is better than frozen by 33.3 points" in done.out
    assert "p = 0.0078, 0.0234 after Holm's correction for 3 data sets)" in done.out
    assert "\ntwo, mrr@10: 12 queries are too few to tell tuned from frozen" in done.out
    assert "\nthree, mrr@10: frozen and tuned score the same on every one of 12 queries: 62.5. Too few" in done.out
    assert (
        "mrr@10, average of 3 data sets, each counting the same: tuned 81.9, frozen 62.5, +19.4 points; better on 2 of"
        " 3. No test over data sets: fewer than 6 cannot reach p < 0.05"
    ) in done.out
    found = json.loads(Path("found.json").read_text())
    assert found["averages"]["mrr@10"]["test"] is None and found["averages"]["mrr@10"]["better"] == 2

    done = command(*arguments, "--correction", "bh")
    assert "two, mrr@10: tuned is better" in done.out and "0.0469 after Benjamini-Hochberg's correction" in done.out
    done = command(*arguments, "--correction", "none")
    assert "two, mrr@10: tuned is better" in done.out and "after" not in done.out


def test_six_data_sets_are_paired(command: Command) -> None:
    done = command(*several(dict.fromkeys("abcdef", 9)), "--json", "found.json")
    assert "better on 6 of 6. Paired test over data sets: p = 0.0312, a significant difference." in done.out
    average = json.loads(Path("found.json").read_text())["averages"]["mrr@10"]
    assert average["test"]["p_value"] == 2 / 2**6 and average["test"]["difference"] == pytest.approx(0.25)


def test_patterns_need_names_and_names_need_patterns(command: Command) -> None:
    arguments = several({"one": 5})
    without = [argument for argument in arguments if argument not in ("--datasets", "one")]
    done = command(*without)
    assert (done.code, done.out) == (2, "")
    assert done.err == "error: RUN_A, RUN_B, --qrels: name the data sets that fill in the {}: --datasets a,b,c\n"
    arguments[3] = "data/one/qrels/test.tsv"
    assert "with --datasets, --qrels must hold {}, where each name goes" in command(*arguments).err
    for names in ("one,one", "one,,two", ""):
        arguments[5] = names
        assert f"--datasets takes different names with commas between, got {names!r}" in command(*arguments).err


# --- what a reader has to know ------------------------------------------------------------------------------------


def test_missing_queries_and_unjudged_documents_are_said(command: Command, tmp_path: Path) -> None:
    qrels = write_qrels(tmp_path / "trec.qrels")
    b = write_run(tmp_path / "b.trec", 0, queries=10, rest="unknown")
    done = command(write_run(tmp_path / "a.trec", 12), b, "--qrels", qrels, "--metric", "mrr@10")
    assert done.code == 0
    assert "mrr@10: b is worse than a by 58.3 points, 41.7 against 100.0" in done.out
    assert "note: Judged queries that b does not have, each counted as 0: 2 of 12.\n" in done.out
    assert (
        "note: mrr@10: be careful, b is behind with fewer judged documents in its top 10 (50.0 %, a 100.0 %). One"
        " without a judgement counts as not relevant, so part of the difference may be missing judgements: with judged"
        " documents alone it is -16.7 points instead of -58.3.\n"
    ) in done.out


def test_identical_ids(command: Command, tmp_path: Path) -> None:
    (tmp_path / "qrels").write_text("q1 0 d 1\nq2 0 d 1\n")
    (tmp_path / "a").write_text("q1 Q0 q1 1 9 x\nq1 Q0 d 2 8 x\nq2 Q0 d 1 9 x\n")
    (tmp_path / "b").write_text("q1 Q0 d 1 8 x\nq2 Q0 d 1 9 x\n")
    done = command("a", "b", "--qrels", "qrels", "--metric", "mrr@10")
    assert "a and b score the same on every one of 2 queries: 100.0. Too few" in done.out
    assert "note: Documents with the id of their query, dropped from a as BEIR does: 1.\n" in done.out
    done = command("a", "b", "--qrels", "qrels", "--metric", "mrr@10", "--keep-identical")
    assert "2 queries are too few to tell b from a: +25.0 points, but" in done.out and "dropped" not in done.out
    assert "(100.0 against 75.0; p = " in done.out


@pytest.mark.parametrize(
    ("a", "b", "names"),
    [
        ("frozen.trec", "tuned.trec.gz", ("frozen", "tuned")),
        ("runs.v2/bm25.run", "runs.v2/rrf.txt", ("bm25", "rrf")),
        ("scifact.frozen.trec", "scifact.tuned.trec", ("frozen", "tuned")),  # the data set's name says nothing
        ("old/run.txt", "new/run.txt", ("old/run", "new/run")),
        ("run.txt", "run.txt.gz", ("A", "B")),
    ],
)
def test_names_of_systems(command: Command, tmp_path: Path, a: str, b: str, names: tuple[str, str]) -> None:
    qrels = write_qrels(tmp_path / "scifact" / "qrels" / "test.tsv")
    write_run(tmp_path / a, 2)
    write_run(tmp_path / b, 3)
    found = json.loads(command(a, b, "--qrels", qrels, "--json", "-").out)
    assert (found["a"]["name"], found["b"]["name"]) == names


# --- a folder of data, and the page -------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> list[object]:
    """A BEIR folder, and runs that find the documents of half the queries first, and of all."""
    data = tiny.write_data(tmp_path / "data")
    for name, right in (("half", 5), ("all", 10)):
        lines = [f"q{i} Q0 d{i} 1 {2 if i - 30 < right else 0} x\nq{i} Q0 d0 2 1 x\n" for i in tiny.TEST]
        (tmp_path / name).write_text("".join(lines))
    return ["half", "all", "--qrels", data]


def test_a_folder_and_its_splits(command: Command, folder: list[object]) -> None:
    done = command(*folder)
    assert done.out.startswith(
        "data: 10 judged queries\n"
        "  half: all 10 judged queries, 2 documents each; of the top 10, 50.0 % are judged, all of these relevant\n"
    )
    refused = command(*folder, "--split", "dev").err
    assert "no judgements for the split 'dev': it has test, train; choose one with --split" in refused
    assert "data: run A has none of the 30 judged queries" in command(*folder, "--split", "train").err


def test_the_page(command: Command, folder: list[object], tmp_path: Path) -> None:
    pytest.importorskip("jinja2", reason="the page is written with jinja2")
    from retrieval_prompts.data.beir_folder import load

    document = load(tmp_path / "data").corpus[35]
    assert command(*folder, "--report", "with.html").out.endswith("written: with.html\n")
    page = Path("with.html").read_text()
    assert document.text in page and "half: all 10 judged queries" in page
    qrels_file = tmp_path / "data" / "qrels" / "test.tsv"
    command("half", "all", "--qrels", qrels_file, "--report", "ids.html")
    page = Path("ids.html").read_text()
    assert document.text not in page and '"d35"' in page
    command("half", "all", "--qrels", qrels_file, "--data", tmp_path / "data", "--report", "texts.html")
    assert document.text in Path("texts.html").read_text()


def test_the_page_of_several_data_sets(command: Command) -> None:
    pytest.importorskip("jinja2", reason="the page is written with jinja2")
    done = command(*several({"one": 11, "two": 3}), "--report", "all.html")
    assert done.code == 0
    page = Path("all.html").read_text()
    assert "tuned against frozen" in page and "average of 2 data sets" in page


# --- mistakes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--metric", "ndcg"], "unknown metric 'ndcg'; expected ndcg@k"),
        (["--metric", "ndcg@10,"], "unknown metric ''; expected ndcg@k"),
        (["--correction", "bonferroni"], "unknown correction 'bonferroni'; expected holm, bh, none"),
        (["--tests", "t"], "unknown --tests 't'; expected permutation or all"),
        (["--matters", "0"], "--matters is a difference in points, from 0.01 to 100, got 0.0"),
        (["--matters", "nan"], "--matters is a difference in points, from 0.01 to 100, got nan"),
        (["--names", "one"], "--names takes two different names with a comma between, got 'one'"),
        (["--names", "one,one"], "--names takes two different names with a comma between, got 'one,one'"),
        (["--data", "x"], "--data holds texts for --report; pass --report as well"),
        (["--report", "r.html", "--data", "x"], "x does not exist; expected a BEIR folder"),
    ],
)
def test_mistakes_in_options(command: Command, files: list[object], options: list[str], message: str) -> None:
    done = command(*files, *options)
    assert done.code == 2
    assert done.err.startswith(f"error: {message}") and done.err.count("\n") == 1
    assert not Path("r.html").exists()


def test_mistakes_in_files(command: Command, files: list[object], tmp_path: Path) -> None:
    def fails(arguments: list[Any], message: str) -> None:
        done = command(*arguments)
        assert (done.code, done.out) == (2, "")
        assert message in done.err and done.err.count("\n") == 1

    a, b, _, qrels = files
    fails(["absent", b, "--qrels", qrels], "error: absent does not exist")
    fails([a, b, "--qrels", "absent"], "error: absent does not exist")
    fails([a, qrels, "--qrels", qrels], 'test.tsv:1: expected 6 columns "query Q0 document rank score tag", got 3')
    fails([a, b, "--qrels", a], "frozen.trec:1: expected BEIR's 3 columns")
    (tmp_path / "other").write_text("Q0 Q0 yes 1 1.0 x\n")
    fails([a, "other", "--qrels", qrels], "scifact: run B has none of the 12 judged queries")
    (tmp_path / "cut.gz").write_bytes(gzip.compress(b"q0 Q0 yes 1 1.0 x\n")[:-9])
    fails([a, "cut.gz", "--qrels", qrels], "cut.gz cannot be read to its end")

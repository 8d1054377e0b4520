"""`retrieval-prompts beir` and the pages of `beir`, `tune` and `evaluate`, in this process on tiny data."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from command_line import Command
from parsed_page import Parsed

from retrieval_prompts.biencoder import BiEncoder
from retrieval_prompts.evaluation.words import paired_tests
from retrieval_prompts.report.page import typeset


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("datasets")
    tiny.write_data(folder / "one", dev=True)
    tiny.write_data(folder / "two", seed=1)
    return folder


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    folder = tmp_path_factory.mktemp("prompts") / "query"
    BiEncoder.load(model, device="cpu").attach("query", length=3).save(folder)
    return folder


def test_a_seed_that_cannot_be_is_refused_before_anything_is_run(
    command: Command, model: Path, data_dir: Path, tmp_path: Path
) -> None:
    given = ["beir", "--datasets", "one", "--data-dir", data_dir, "--model", model, "--out", tmp_path / "out"]
    done = command(*given, "--baselines", "linear", "--seed", "-1")
    assert (done.code, done.err) == (2, "error: --seed must be from 0 to 4294967295, got -1\n")
    assert not (tmp_path / "out").exists()


def test_beir_prints_a_table_writes_everything_and_goes_on(
    command: Command, model: Path, data_dir: Path, prompts: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    given = ["beir", "--datasets", "one,two", "--data-dir", data_dir, "--model", model, "--out", out, "--device", "cpu"]
    done = command(*given, "--prompts", prompts, "--baselines", "bm25,rrf", "--report", out / "r.html")
    assert done.code == 0, done.err
    result = json.loads((out / "results.json").read_text())
    shown = f"{100 * result['datasets']['two']['systems']['tuned']['ndcg@10']:.1f}"
    row = next(line for line in done.out.splitlines() if "soft prompts  " in line)
    assert row.split("│")[3].strip() == shown
    found = result["datasets"]["one"]
    for test in paired_tests(found["tests"], found["systems"]):
        assert f"one: {test.sentence()}" in done.out
    assert "Adjusted values of p are for the number of systems." in done.out
    assert list(found["systems"]) == ["bm25", "frozen", "frozen+bm25", "tuned", "tuned+bm25", "rrf", "rrf-tuned"]
    assert list(found["weights"]) == ["frozen", "tuned"]
    for title in ("frozen model + BM25", "soft prompts + BM25"):
        assert any(title in line for line in done.out.splitlines())
    names = {f"{data}.{system}.trec" for data in ("one", "two") for system in result["datasets"]["one"]["systems"]}
    assert {path.name for path in out.iterdir()} == names | {
        "SHA256SUMS",
        "results.json",
        "table.md",
        "table.csv",
        "table.tex",
        "r.html",
    }
    page = (out / "r.html").read_text()
    assert "one" in page
    assert "documents: none encoded again for the prompts" in page
    assert "<dt>Command</dt><dd><code>retrieval-prompts beir --datasets one,two" in page
    assert result["provenance"]["command"].startswith("retrieval-prompts beir --datasets one,two --data-dir ")
    before = {path: path.stat().st_mtime_ns for path in out.glob("*.trec")}
    done = command(*given, "--prompts", prompts, "--baselines", "bm25,rrf")
    assert done.code == 0
    assert "one, frozen: nDCG@10" not in done.out  # nothing was run again
    assert json.loads((out / "results.json").read_text())["provenance"] == result["provenance"]
    assert {path: path.stat().st_mtime_ns for path in out.glob("*.trec")} == before
    (out / "two.bm25.trec").unlink()
    done = command("beir", "--datasets", "one", *given[3:], "--prompts", prompts, "--baselines", "bm25,rrf")
    assert (
        "results.json has figures of 1 runs that are not there (two.bm25.trec); they are kept as they are" in done.err
    )


def test_a_page_that_exists_is_refused_before_anything_is_run(
    command: Command, model: Path, data_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "r.html").write_text("mine")
    given = ["beir", "--datasets", "one", "--data-dir", data_dir, "--model", model, "--out", tmp_path / "out"]
    done = command(*given, "--report", tmp_path / "r.html")
    assert done.code == 2
    assert "r.html exists already" in done.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--baselines", "bm52"], "--baselines: expected bm25, linear, lora, nudge, rrf; or none, got 'bm52'"),
        (["--datasets", "three"], "no data set of BEIR is called 'three'"),
        (["--precision", "float8"], "--precision must be float32 or bfloat16, got 'float8'"),
        (["--prompts", "nowhere", "--tune"], "pass --prompts or --tune, not both"),
        (["--kind", "prefix"], "--kind applies to prompts that are tuned; pass --tune as well"),
        (["--factory", "Flatt"], "cannot build the index 'Flatt'"),
        (["--nprobe", "4"], "an index of type Flat has no nprobe; leave it out"),
    ],
)
def test_mistakes_are_one_line(
    command: Command, model: Path, data_dir: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    given = ["beir", "--datasets", "one", "--data-dir", data_dir, "--model", model, "--out", tmp_path / "out"]
    done = command(*given, "--cache", tmp_path / "cache", *options)
    assert done.code == 2
    assert message in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert not (tmp_path / "cache").exists(), "nothing was encoded for it"
    assert not (tmp_path / "out").exists()


def test_a_page_of_bfloat16_documents_encodes_none_again(
    command: Command, model: Path, data_dir: Path, prompts: Path, tmp_path: Path
) -> None:
    given = ["beir", "--datasets", "one", "--data-dir", data_dir, "--model", model, "--out", tmp_path / "out"]
    given += ["--prompts", prompts, "--baselines", "none", "--precision", "bfloat16", "--cache", tmp_path / "cache"]
    assert command(*given).code == 0
    before = sorted(tmp_path.glob("cache/**/*.npy"))
    assert before
    assert command(*given, "--report", tmp_path / "r.html").code == 0
    assert sorted(tmp_path.glob("cache/**/*.npy")) == before
    assert "strength" in (tmp_path / "r.html").read_text()


def test_a_page_of_the_frozen_model_alone(command: Command, model: Path, data_dir: Path, tmp_path: Path) -> None:
    given = ["beir", "--datasets", "one", "--data-dir", data_dir, "--model", model, "--out", tmp_path / "out"]
    done = command(*given, "--baselines", "none", "--report", tmp_path / "r.html")
    assert done.code == 0, done.err
    assert "frozen" in (tmp_path / "r.html").read_text()


def test_tune_refuses_a_page_that_would_be_empty(command: Command, model: Path, tmp_path: Path) -> None:
    data = tiny.write_data(tmp_path / "data", dev=True)
    (data / "qrels" / "test.tsv").unlink()
    train = data / "qrels" / "train.tsv"
    train.write_text("".join(train.read_text().splitlines(keepends=True)[:11]))  # too few to hold test queries out
    done = command("tune", data, "--out", tmp_path / "p", "--model", model, "--report", tmp_path / "r.html")
    assert done.code == 2
    assert "--report shows an evaluation" in done.err
    assert not (tmp_path / "p").exists()


def test_json_goes_to_standard_output_alone(command: Command, model: Path, data_dir: Path, tmp_path: Path) -> None:
    given = ["beir", "--datasets", "one", "--data-dir", data_dir, "--model", model, "--out", tmp_path / "out"]
    done = command(*given, "--baselines", "none", "--json", "-")
    assert done.code == 0, done.err
    assert list(json.loads(done.out)["datasets"]["one"]["systems"]) == ["frozen"]


def test_tune_and_evaluate_write_a_page(command: Command, model: Path, data_dir: Path, tmp_path: Path) -> None:
    quick = ["--epochs", "2", "--batch-size", "8", "--length", "3", "--lr", "0.05", "--device", "cpu", "--folds", "1"]
    out, first, second = tmp_path / "prompts", tmp_path / "tune.html", tmp_path / "evaluate.html"
    written = tmp_path / "tune.json"
    given = ("tune", data_dir / "one", "--out", out, "--model", model, "--report", first, "--json", written, *quick)
    done = command(*given)
    assert done.code == 0, done.err
    assert f"report: {first}" in done.out
    result = json.loads(written.read_text())
    assert (result["documents"], result["queries"], len(result["fingerprint"])) == (40, 10, 64)
    assert result["provenance"]["command"] == " ".join(map(str, ("retrieval-prompts", *given)))
    shown = Parsed(first.read_text()).text
    for said in (
        f"{result['recommendation']['verdict']} {typeset(result['recommendation']['sure'][0])}",
        f"Made {result['provenance']['date'][:10]}, ",
        f"Version retrieval-prompts {result['provenance']['version']}",
        f"Command {result['provenance']['command']}",
        "Queries 30 train, 8 dev, 10 test",
        "Documents 40, none encoded again for the prompts",
        "with choosing by dev, encoder table, length 3, batch 8, learning rate 0.05, seed 0",
        f"Time of a query {result['recommendation']['milliseconds']['frozen']:.1f} ms frozen",
        f", fingerprint {result['fingerprint'][:12]}",
    ):
        assert said in shown, said
    done = command("evaluate", data_dir / "one", "--prompts", out, "--model", model, "--report", second)
    assert done.code == 0, done.err
    for page in (first.read_text(), second.read_text()):
        assert "Training" in page  # the curves were kept with the prompts
        assert "strength" in page
    third = tmp_path / "frozen.html"
    assert command("evaluate", data_dir / "one", "--model", model, "--report", third).code == 0
    assert "frozen model" in third.read_text()


def test_the_script_is_the_command(model: Path, data_dir: Path, tmp_path: Path) -> None:
    script = Path(__file__).parents[5] / "eval" / "run_beir.py"
    given = ["--datasets", "one", "--data-dir", data_dir, "--model", model, "--out", tmp_path / "out"]
    done = subprocess.run(
        [sys.executable, script, *map(str, given), "--cache", tmp_path / "cache", "--baselines", "none"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "one, frozen: nDCG@10" in done.stdout
    assert (tmp_path / "out" / "one.frozen.trec").is_file()


def test_data_of_ones_own_are_read_as_by_the_other_commands(
    command: Command, model: Path, data_dir: Path, tmp_path: Path
) -> None:
    """Documents in a table, queries and judgements beside them; chunks are ranked as documents, by each baseline."""
    folder, table = data_dir / "one", tmp_path / "all.csv"  # a word that means something among names
    rows = [json.loads(line) for line in (folder / "corpus.jsonl").read_text().splitlines()]
    table.write_text("id,text\n" + "".join(f"{row['_id']},{row['title']} {row['text']}\n" for row in rows))
    given = ["--queries", folder / "queries.jsonl", "--model", model, "--device", "cpu", "--cache", tmp_path / "cache"]
    for split in ("train", "dev", "test"):
        given += ["--judgements", folder / "qrels" / f"{split}.tsv"]
    out = tmp_path / "out"
    done = command("beir", "--documents", table, *given, "--out", out, "--report", tmp_path / "r.html")
    assert done.code == 0, done.err
    assert f"{table}: id 'id', text 'text'" in done.out.replace(", no title", "")
    result = json.loads((out / "results.json").read_text())["datasets"]
    assert list(result) == ["all"]
    again = command("evaluate", "--documents", table, *given, "--json", "-").json
    assert result["all"]["systems"]["frozen"]["ndcg@10"] == again["systems"]["frozen"]["ndcg@10"]
    chunked = tiny.cut_in_two(tiny.write_data(tmp_path / "chunked", dev=True))
    done = command(
        "beir", chunked, "--model", model, "--device", "cpu", "--baselines", "nudge", "--out", tmp_path / "c"
    )
    assert done.code == 0, done.err
    runs = (tmp_path / "c" / "chunked.nudge.trec").read_text().split()[2::6]
    assert {id.rpartition("#")[2] for id in runs} == {"1"}
    both = command("beir", chunked, "--datasets", "one", "--out", tmp_path / "both")
    assert both.err == "error: --datasets names data sets of BEIR; leave it out for data of your own\n"

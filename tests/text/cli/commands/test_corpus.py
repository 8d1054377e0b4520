"""From what people have to a data folder, an index and prompts, as typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
from command_line import Command, command_line

from retrieval_prompts.cli import app as cli
from retrieval_prompts.data.beir_folder import load

QUICK = ["--epochs", "1", "--batch-size", "8", "--length", "2", "--folds", "1", "--device", "cpu"]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    monkeypatch.setenv("RETRIEVAL_PROMPTS_CACHE", str(tmp_path / "cache"))
    return command_line("retrieval-prompts", cli.main, monkeypatch, capsys)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Documents as a table, and a click log, of the tiny data."""
    folder = tmp_path_factory.mktemp("files")
    data = load(tiny.write_data(folder / "data"))
    table, log = folder / "products.jsonl", folder / "clicks.csv"
    table.write_text("".join(json.dumps({"sku": each.id, "text": each.text}) + "\n" for each in data.corpus))
    rows = [(data.queries[query], id) for qrels in data.qrels.values() for query, own in qrels.items() for id in own]
    log.write_text("query,sku,clicks\n" + "".join(f"{query},{id},3\n" for query, id in rows))
    return table, log


def test_a_data_folder_is_made_and_said(command: Command, files: tuple[Path, Path], tmp_path: Path) -> None:
    table, log = files
    done = command("corpus", table, "--judgements", log, "--out", tmp_path / "data", "--json", "-")
    assert done.code == 0
    assert done.json["documents"] == len(load(tmp_path / "data").corpus) == 40
    assert done.json["splits"] == {"train": 40}
    assert f"{table}: id 'sku', text 'text', no title" in done.err
    assert "queries 'query' (texts), relevant documents 'sku' (ids), clicks 'clicks'" in done.err
    again = command("corpus", table, "--out", tmp_path / "data")
    assert again.code == 2
    assert "exists already" in again.err
    assert command("corpus", table, "--out", tmp_path / "data", "--overwrite").code == 0


def test_index_and_tune_take_sources_as_they_are(
    command: Command, files: tuple[Path, Path], model: Path, tmp_path: Path
) -> None:
    table, log = files
    done = command("tune", "--documents", table, "--judgements", log, "--out", tmp_path / "p", "--model", model, *QUICK)
    assert done.code == 0, done.err
    assert "products: 40 documents" in done.out
    done = command("evaluate", table, "--judgements", log, "--model", model, "--split", "train", "--device", "cpu")
    assert done.code == 0, done.err
    pages = tmp_path / "pages"
    pages.mkdir()
    (pages / "a.txt").write_text(" ".join(tiny.WORDS[:60]))
    done = command("index", pages, "--out", tmp_path / "index", "--model", model)
    assert done.code == 0, done.err
    assert f"{tmp_path / 'index'}: 2 chunks of 1 documents, Flat" in done.out
    assert "1 files of text, in chunks of up to 40 tokens, 5 overlap" in done.out
    assert json.loads((tmp_path / "index" / "ids.json").read_text()) == ["a.txt#1", "a.txt#2"]


def test_chunks_are_counted_as_such_and_the_next_command_has_the_model(
    command: Command, model: Path, tmp_path: Path
) -> None:
    pages, out = tmp_path / "pages", tmp_path / "data"
    pages.mkdir()
    for name in ("a.txt", "b.txt"):
        (pages / name).write_text(" ".join(tiny.WORDS[:60]))
    done = command("corpus", pages, "--out", out, "--model", model, "--query-words", "find: ")
    assert done.code == 0, done.err
    assert "chunks that nearly say the same: 2 (--duplicates near leaves them out)" in done.out
    assert f"{out}: 4 chunks of 2 documents, 0 queries" in done.out
    assert done.out.splitlines()[-1] == (
        f"next: retrieval-prompts index {out} --out INDEX --model {model} --query-words 'find: '"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "x"], "name documents, or judgements that hold their texts"),
        (["{}", "--out", "x", "--columns", "frage"], r"--columns: expected ROLE=COLUMN .* got 'frage'"),
        (["{}", "--out", "x", "--overlap", "3"], "--overlap applies to chunks; pass --chunk as well"),
        (["{}", "--out", "x", "--chunk", "3"], "--chunk must be at least 32 tokens, or 0 for whole texts, got 3"),
        (["{}", "--out", "x", "--duplicates", "some"], "--duplicates must be keep, exact, near, got 'some'"),
        (["{}", "--out", "x", "--test", "0.9", "--dev", "0.2"], "must be shares that leave some for train"),
    ],
)
def test_bad_options_are_one_line(
    command: Command, files: tuple[Path, Path], tmp_path: Path, arguments: list[str], message: str
) -> None:
    import re

    given = [str(tmp_path / each) if each == "x" else each.replace("{}", str(files[0])) for each in arguments]
    done = command("corpus", *given)
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert re.search(message, done.err)

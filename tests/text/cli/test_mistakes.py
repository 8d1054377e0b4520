"""Bad data, bad options, models and prompts that are none: one line each."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Command, Done
from text_commands import ONCE, refused, tree


def append(name: str, line: str) -> Callable[[Path], None]:
    def change(data: Path) -> None:
        path = data / name
        path.write_text(path.read_text() + line + "\n")

    return change


def put(name: str, content: bytes) -> Callable[[Path], None]:
    def change(data: Path) -> None:
        (data / name).write_bytes(content)

    return change


def one_train_query(data: Path) -> None:
    (data / "qrels" / "train.tsv").write_bytes(HEADER + b"q0\td0\t1\n")
    (data / "qrels" / "dev.tsv").unlink()


HEADER = b"query-id\tcorpus-id\tscore\n"


CORPUS_FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "malformed JSON": (
        append("corpus.jsonl", '{"_id": "x", "text": '),
        r"corpus.jsonl:41: expected a JSON object, got ma",
    ),
    "no object": (append("corpus.jsonl", "[1]"), r"corpus.jsonl:41: expected a JSON object, got list"),
    "text of a wrong kind": (
        append("corpus.jsonl", '{"_id": "x", "text": []}'),
        r'corpus.jsonl:41: "text" must be a string, got list',
    ),
    "missing id": (
        append("corpus.jsonl", '{"text": "x"}'),
        r'corpus.jsonl:41: expected the field "_id", got only text',
    ),
    "duplicate id": (
        append("corpus.jsonl", '{"_id": "d3", "text": "x"}'),
        r"corpus.jsonl:41: document id 'd3' was used on line 4 already",
    ),
    "not UTF-8": (
        put("corpus.jsonl", b'\n{"_id": "x", "text": "caf\xe9"}\n'),
        r"corpus.jsonl:2: expected UTF-8, got byte",
    ),
    "empty corpus": (put("corpus.jsonl", b""), r"corpus.jsonl holds no documents"),
    "no corpus": (lambda data: (data / "corpus.jsonl").unlink(), r"has neither corpus.jsonl nor corpus.jsonl.gz"),
    "no folder": (lambda data: shutil.rmtree(data), r"does not exist; expected a BEIR folder"),
}


DATA_FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    **CORPUS_FAULTS,
    "malformed query": (append("queries.jsonl", "{"), r"queries.jsonl:49: expected a JSON object, got malformed JSON"),
    "query without text": (append("queries.jsonl", '{"_id": "x"}'), r'queries.jsonl:49: expected the field "text"'),
    "duplicate query": (
        append("queries.jsonl", '{"_id": "q0", "text": "x"}'),
        r"queries.jsonl:49: query id 'q0' was used on line 1 already",
    ),
    "unknown header": (put("qrels/test.tsv", b"a\tb\tc\n"), r"test.tsv:1: expected a grade"),
    "unknown ids": (
        put("qrels/test.tsv", HEADER + b"30\t30\t1\n"),
        r"test.tsv: dropped judgements: 1 with an unknown query \(30\); none is left. Expected ids of this folder",
    ),
    "wrong grade": (put("qrels/test.tsv", HEADER + b"q30\td30\tyes\n"), r"test.tsv:2: expected a grade"),
    "two columns": (put("qrels/test.tsv", HEADER + b"q30\td30\n"), r"test.tsv:2: expected 3 columns"),
    "empty test": (put("qrels/test.tsv", HEADER), r"split 'test' of \S+ has no query with a relevant document"),
    "no qrels": (lambda data: shutil.rmtree(data / "qrels"), r"has no folder qrels; expected qrels/<split>.tsv"),
}


NOTHING = r"nothing here that prompts were shown to learn from \(a log of only \d+ queries, and 100 are needed; only"


TUNE_FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "empty train": (put("qrels/train.tsv", HEADER), r"split 'train' of \S+ has no query with a relevant document"),
    "nothing relevant": (put("qrels/train.tsv", HEADER + b"q0\td0\t0\n"), r"split 'train' of \S+ has no query with"),
    "no train": (lambda data: (data / "qrels" / "train.tsv").unlink(), NOTHING),
    "no judgements": (lambda data: shutil.rmtree(data / "qrels"), NOTHING),
    "one train query": (one_train_query, r"holding out queries needs at least 2 of them, got 1"),
}


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        *(("index", fault) for fault in CORPUS_FAULTS),
        *(("evaluate", fault) for fault in DATA_FAULTS),
        *(("tune", fault) for fault in {**DATA_FAULTS, **TUNE_FAULTS} if fault != "no qrels"),
    ],
)
def test_bad_data(command: Command, model: Path, data: Path, tmp_path: Path, name: str, fault: str) -> None:
    change, message = {**DATA_FAULTS, **TUNE_FAULTS}[fault]
    shutil.copytree(data, tmp_path / "data")
    change(tmp_path / "data")
    before = tree(tmp_path)
    outputs = {
        "index": ["--out", tmp_path / "out"],
        "evaluate": ["--json", tmp_path / "result.json", "--run", tmp_path / "run"],
        "tune": ["--out", tmp_path / "out", "--json", tmp_path / "result.json"],
    }
    refused(command(name, tmp_path / "data", "--model", model, *outputs[name]), message)
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--side", "left"], "--side must be query, document or both, got 'left'"),
        (["--kind", "suffix"], "--kind must be input, prefix or auto, got 'suffix'"),
        (["--encoder", "gru"], "--encoder must be table, mlp, lstm, feedback or auto, got 'gru'"),
        (["--negatives", "hard"], "--negatives must be corpus, in-batch or mined, got 'hard'"),
        (["--init", "zeros"], "--init must be text:WORDS, vocab or gaussian, got 'zeros'"),
        (["--init", "text:"], "--init 'text:' has no words"),
        (["--common"], "--common is used with --side both, not with --side query"),
        (["--length", "0"], "--length must be 1 or more, got 0"),
        (["--length", "57"], "a query prompt of 57 leaves 7 of 40 tokens to the text; use a smaller --length"),
        (["--epochs", "0"], "--epochs must be 1 or more, got 0"),
        (["--lr", "0"], r"--lr must be above 0 and at most 1e\+30, got 0.0"),
        (["--lr", "nan"], r"--lr must be above 0 and at most 1e\+30, got nan"),
        (["--batch-size", "-1"], "--batch-size must be 1 or more, got -1"),
        (["--temperature", "0"], "temperature must be above 0, got 0.0"),
        (["--patience", "0"], "--patience must be 1 or more, got 0"),
        (["--seed", "-1"], "seed must be from 0 to"),
        (["--split", "tset"], "has no split 'tset'; it has dev, test, train"),
        (["--model", "no/model/here"], "there is no model folder no/model/here; give a folder, a name on the hub"),
    ],
    ids=str,
)
def test_bad_options_of_tune(
    command: Command, model: Path, data: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    outputs = ["--out", tmp_path / "out", "--json", tmp_path / "result.json"]
    refused(command("tune", data, "--model", model, *outputs, *options), message)
    assert list(tmp_path.iterdir()) == []


def test_a_strength_without_prompts(command: Command, model: Path, data: Path) -> None:
    refused(command("evaluate", data, "--model", model, "--strength", "0.5"), "pass --prompts as well")


def test_a_loss_that_is_not_finite(command: Command, model: Path, data: Path, tmp_path: Path) -> None:
    done = command("tune", data, "--model", model, "--out", tmp_path / "out", "--temperature", "1e-30", *ONCE)
    assert done.code == 2
    last = done.err.splitlines()[-1]  # after the progress
    assert last.startswith("error: the loss is not finite (loss ")
    assert last.endswith(f"; the last good prompt: {tmp_path / 'out.last-good'}")
    assert "Traceback" not in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["out.last-good"]


@pytest.mark.parametrize("name", ["tune", "evaluate", "index"])
def test_a_model_that_is_none(command: Command, data: Path, tmp_path: Path, name: str) -> None:
    out = [] if name == "evaluate" else ["--out", tmp_path / "out"]
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    before = tree(tmp_path)
    for model, message in (
        ("empty", "is not a model folder: expected config.json or modules.json in it; give the folder of a "),
        ("file", "is a file; expected a model folder or a model's name"),
        ("missing", "there is no model folder"),
        ("broken", "could not be loaded: expected a sentence-transformers or Hugging Face encoder"),
    ):
        refused(command(name, data, "--model", tmp_path / model, *out), message)
    assert tree(tmp_path) == before


def test_a_name_that_no_hub_gives_is_one_line_of_a_whole_process(data: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "retrieval_prompts.cli.app", "evaluate", str(data), "--model", "no-such-model"],
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)},
    )
    refused(Done(done.returncode, done.stdout, done.stderr), "model no-such-model could not be loaded: expected a sent")


def test_prompts_that_are_none(command: Command, model: Path, data: Path, index: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    before = tree(tmp_path)
    for name in ("empty", "missing"):
        path = tmp_path / name
        message = f"{path} is not a prompt folder: expected prompt.safetensors and prompt.json in it"
        refused(command("evaluate", data, "--model", model, "--prompts", path), message)
        refused(command("index", data, "--model", model, "--prompts", path, "--out", tmp_path / "out"), message)
        refused(command("search", index, "copper", "--prompts", path), message)
        refused(command("export", path, "--out", tmp_path / "out"), message)
    assert tree(tmp_path) == before


def test_bad_searches(command: Command, index: Path, data: Path, query_prompts: Path, tmp_path: Path) -> None:
    for empty in ("", " \t"):
        refused(command("search", index, empty), "the question is empty; write what you look for in quotes")
    refused(command("search", tmp_path, "copper"), "is not an index folder: it has no manifest.json")
    refused(command("search", data, "copper"), "is not an index folder: it has no manifest.json")
    refused(command("search", index, "copper", "--nprobe", "3"), "an index of type Flat has no nprobe; leave it out")
    too_much = ["--prompts", query_prompts, "--strength", "2"]
    refused(command("search", index, "copper", *too_much), "strength must be from 0 .* to 1 .*, got 2.0")
    for k in ("0", "-3", "many"):
        done = command("search", index, "copper", "-k", k)
        assert done.code == 2
        assert "Invalid value for '-k' / '--top-k'" in done.err or "Invalid value for '--top-k' / '-k'" in done.err
        assert "Traceback" not in done.err


def test_bad_options_of_evaluate_and_index(command: Command, model: Path, data: Path, tmp_path: Path) -> None:
    refused(
        command("evaluate", data, "--model", model, "--split", "tset"), "has no split 'tset'; it has dev, test, train"
    )
    out = tmp_path / "out"
    message = "cannot build the index 'Nonsense' on vectors of dimension 32"
    refused(command("index", data, "--model", model, "--out", out, "--factory", "Nonsense"), message)
    assert list(tmp_path.iterdir()) == []

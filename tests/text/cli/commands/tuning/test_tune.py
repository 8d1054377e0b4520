"""retrieval-prompts tune without judged queries."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny
from command_line import Command

SETTINGS = ("--epochs", "2", "--kind", "input", "--length", "2")


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    """A folder with a corpus of 120 titled documents, and nothing else."""
    random, folder = np.random.default_rng(0), tmp_path / "documents"
    folder.mkdir()
    words = [" ".join(random.choice(tiny.WORDS, 9, replace=False)) for _ in range(120)]
    rows = [{"_id": f"d{n}", "title": " ".join(each.split()[:3]), "text": each} for n, each in enumerate(words)]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_documents_alone_are_enough(command: Command, documents: Path, tmp_path: Path) -> None:
    model = tiny.write_model(tmp_path / "model")
    done = command("tune", documents, "--model", model, "--out", tmp_path / "prompts", "--pairs", "titles", *SETTINGS)
    assert done.code == 0, done.err
    assert "no judged queries to learn from" in done.out
    assert "learned from 120 titles" in done.out
    assert (tmp_path / "prompts" / "prompt.json").is_file()
    data = tiny.write_data(tmp_path / "judged")
    other = command("tune", data, "--model", model, "--out", tmp_path / "p", "--pairs", "titles", *SETTINGS)
    assert "judged queries are not learned from" in other.out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--pairs", "labelled"], "queries.jsonl"),
        (["--pairs", "generated"], "--generator"),
        (["--pairs", "queries"], "a log of only 0 queries"),
        (["--pairs", "titles", "--teacher", "model"], "--teacher is used with --pairs queries"),
    ],
)
def test_what_is_missing_is_said(
    command: Command, documents: Path, tmp_path: Path, options: list[str], said: str
) -> None:
    model = tiny.write_model(tmp_path / "model")
    done = command("tune", documents, "--model", model, "--out", tmp_path / "prompts", *options)
    assert done.code == 2
    assert said in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert not (tmp_path / "prompts").exists()

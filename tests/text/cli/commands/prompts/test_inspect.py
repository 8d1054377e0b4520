"""retrieval-prompts inspect: what it prints and writes, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
from command_line import Command

from retrieval_prompts.biencoder import BiEncoder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_data(tmp_path_factory.mktemp("tiny") / "data")


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prompts")
    model = tiny.write_model(folder)
    BiEncoder.load(model, device="cpu").attach(length=2, init="text:river copper").save(folder / "made")
    return folder / "made"


def test_words_without_data(command: Command, prompts: Path) -> None:
    said = command("inspect", prompts).out
    assert "query prompt, nearest words (cosine):" in said
    assert "       1  river 1.00, " in said and "  random  " in said
    assert "* Query prompt: 2 of 2 vectors are nearer to a word than random ones" in said
    assert "What the prompts do to queries needs data: --data DATA." in said


def test_of_many_vectors_the_first_are_shown(
    command: Command, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("page", "inspection_page"):
        monkeypatch.setattr(f"retrieval_prompts.report.{module}.WORDS_SHOWN", 1)
    said = command("inspect", prompts, "--html", tmp_path / "page.html").out
    assert "       1  river" in said and "       2  " not in said and "  ... and 1 more" in said
    assert "The first 1 of 2 vectors; the JSON has all." in (tmp_path / "page.html").read_text()


def test_with_data_a_page_and_json(command: Command, prompts: Path, data: Path, tmp_path: Path) -> None:
    page, out = tmp_path / "page.html", tmp_path / "found.json"
    files = ("--html", page, "--json", out)
    said = command("inspect", prompts, "--data", data, "--draws", 2, "--queries", 5, *files)
    found = json.loads(out.read_text())
    assert found["prompts"] == str(prompts) and found["asked"]["queries"] == [5, 10]
    assert found["asked"]["systems"]["words"] == pytest.approx(found["asked"]["systems"]["tuned"])  # they are words
    assert len(found["asked"]["left_out"]) == 2
    assert all(f"{'*' if claim['beyond'] else '-'} {claim['text']}" in said.out for claim in found["claims"])
    assert "What untrained prompts do as well" in page.read_text()
    again = command("inspect", prompts, "--html", page)
    assert again.code == 2
    assert again.err.splitlines()[-1].startswith(f"error: {page} exists")


def test_what_is_about_data_is_refused_without(command: Command, prompts: Path) -> None:
    said = command("inspect", prompts, "--split", "dev", "--queries", 5, "--draws", 2)
    assert said.code == 2
    assert said.err.splitlines()[-1] == (
        "error: without data there is no use for --split, --queries, --draws; pass --data as well"
    )

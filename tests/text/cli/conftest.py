"""A model, data, prompts and an index for the command line, and a cache of its own for each file of tests: what is
encoded, and what was there, is counted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny
from command_line import Command
from text_commands import prompts


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder that document vectors are cached in."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("RETRIEVAL_PROMPTS_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_data(tmp_path_factory.mktemp("tiny") / "data", dev=True)


@pytest.fixture
def better_mean_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """So few queries make nothing sure: without this no prompt would be used."""
    monkeypatch.setattr("retrieval_prompts.experiments.selection.choice.ALPHA", 1.0)


@pytest.fixture(scope="module")
def query_prompts(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    return prompts(tmp_path_factory.mktemp("prompts") / "query", model, "query", "input")


@pytest.fixture(scope="module")
def both_prompts(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    return prompts(tmp_path_factory.mktemp("prompts") / "both", model, "both", "prefix")


@pytest.fixture(scope="module")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_model(tmp_path_factory.mktemp("other"), seed=1)


@pytest.fixture
def index(command: Command, model: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("index") / "index"
    assert command("index", data, "--out", folder, "--model", model).code == 0
    return folder

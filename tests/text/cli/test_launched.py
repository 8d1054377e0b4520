"""A command that several processes were launched for."""

from __future__ import annotations

from pathlib import Path

import processes
import pytest
from command_line import Command

from retrieval_prompts.cli import console


def test_the_first_process_alone_writes_and_prints(command: Command, model: Path, data: Path, tmp_path: Path) -> None:
    quick = ["--epochs", "2", "--batch-size", "8", "--length", "3", "--lr", "0.05", "--folds", "1", "--device", "cpu"]
    arguments = ["tune", data, "--model", model, "--out", tmp_path / "out", "--json", tmp_path / "found.json", *quick]
    with processes.helper(*arguments) as helper:
        done = command(*arguments)
        said, wrong = helper.communicate(timeout=120)
    assert (done.code, helper.returncode) == (0, 0), done.err
    assert "training on 2 processes" in done.out
    assert (said, wrong) == ("", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["found.json", "out"]


@pytest.mark.parametrize("rank", ["0", "1"])
def test_what_several_processes_cannot_do_is_refused_by_the_first(
    command: Command, data: Path, monkeypatch: pytest.MonkeyPatch, rank: str
) -> None:
    launched = {"RANK": rank, "WORLD_SIZE": "3", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    for name, value in launched.items():
        monkeypatch.setenv(name, value)
    for arguments, said in (
        (["evaluate", data], "evaluate runs in one process, and 3 were launched"),
        (["tune", data, "--out", "x", "--device", "cuda:1"], "with several processes --device is cpu or cuda"),
    ):
        done = command(*arguments)
        assert done.code == 2
        assert done.out == ""
        assert done.err.startswith(f"error: {said}") if rank == "0" else done.err == ""
        assert done.err.count("\n") == (1 if rank == "0" else 0)


def test_a_command_that_was_started_as_a_module_is_recorded_so() -> None:
    assert console.program("bin/retrieval-prompts") == ["retrieval-prompts"]
    module = ["python", "-m", "multimodal.cli.app"]
    assert console.program("/lib/multimodal/cli/app.py") == module

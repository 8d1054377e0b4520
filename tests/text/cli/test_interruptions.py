"""A command that was cut short, two at once, what the system refuses."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from command_line import Command
from text_commands import ONCE, QUICK, refused, tree

from retrieval_prompts.training import retrieval as tuning
from retrieval_prompts.training.losses import info_nce


def test_ctrl_c_leaves_a_checkpoint_and_the_same_command_goes_on(
    command: Command, model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def arguments(out: str) -> list[Any]:
        return ["tune", data, "--out", tmp_path / out, "--model", model, *ONCE]

    calls = 0

    def interrupt(*given: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return info_nce(*given)

    assert command(*arguments("whole")).code == 0
    with monkeypatch.context() as patch:
        patch.setattr(tuning, "info_nce", interrupt)
        done = command(*arguments("out"))
    assert done.code == 130
    assert done.err.endswith("\ninterrupted; the same command goes on from where it was\n")
    assert "Traceback" not in done.err
    assert [path.suffix for path in sorted(tmp_path.iterdir())] == [".partial", ""]
    assert command(*arguments("out")).code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "whole"]
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_a_killed_tune_goes_on_to_the_same_prompt(command: Command, model: Path, data: Path, tmp_path: Path) -> None:
    def arguments(out: str) -> list[Any]:
        long = ["--epochs", "100", "--max-steps", "200", "--side", "both"]
        return ["tune", data, "--out", tmp_path / out, "--model", model, *QUICK, *long]

    process = subprocess.Popen(
        [sys.executable, "-m", "retrieval_prompts.cli.app", *map(str, arguments("out"))],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": str(_threads())},
    )
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("*.partial")):
        assert process.poll() is None, "it ended before its first checkpoint"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert [path.suffix for path in tmp_path.iterdir() if not path.name.startswith(".")] == [".partial"]
    done = command(*arguments("out"))
    assert done.code == 0
    assert not re.search(r"^frozen: dev", done.err, re.MULTILINE)  # it did not begin anew
    assert command(*arguments("whole")).code == 0
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith(".")) == ["out", "whole"]


def test_what_is_missing_beside_finished_prompts_is_made_without_training(
    command: Command, model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, result, report = (tmp_path / name for name in ("out", "result.json", "report.html"))
    arguments = ["tune", data, "--out", out, "--model", model, "--json", result, "--report", report, *ONCE]
    assert command(*arguments).code == 0
    before = tree(out)
    found = json.loads(result.read_text())
    refused(command(*arguments), "out exists already; choose another name or pass --overwrite")
    result.write_text("kept")
    report.unlink()
    refused(command(*arguments, "--seed", "5"), "out exists already, made by a run with other settings, data or model")
    monkeypatch.setattr(tuning, "info_nce", None)
    assert command(*arguments).code == 0
    assert (tree(out), result.read_text()) == (before, "kept")
    assert report.stat().st_size > 10_000
    result.unlink()
    assert command(*arguments).code == 0
    again = json.loads(result.read_text())
    for name in ("systems", "tests", "choice", "weights", "settings"):
        assert again[name] == found[name]
    for each in (again, found):  # without times
        del each["recommendation"]["milliseconds"], each["recommendation"]["cost"], each["recommendation"]["sentence"]
    assert again["recommendation"] == found["recommendation"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "report.html", "result.json"]


LAST = "cli.commands.tuning.evaluate.write_runs"


@pytest.mark.parametrize("written", ["result.json", "page.html"])
def test_what_an_evaluation_wrote_before_it_was_cut_short_is_made_again(
    command: Command, model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    paths = [tmp_path / name for name in ("result.json", "page.html", "runs")]
    arguments = ["evaluate", data, "--model", model, "--json", paths[0], "--report", paths[1], "--run", paths[2]]

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(f"retrieval_prompts.{'report.page.write_report' if written == 'result.json' else LAST}", stop)
        assert command(*arguments).code == 130
    assert (tmp_path / written).exists() and not paths[2].exists()
    (tmp_path / "..result.json.unfinished.new-abcd1234").touch()  # as a kill while that was written leaves it
    other = command("evaluate", data, "--model", model, "--json", paths[0])
    assert other.err == f"error: {paths[0]} exists already; choose another name or pass --overwrite (overwrite=True)\n"
    assert command(*arguments).code == 0
    assert sorted(tmp_path.iterdir()) == sorted(paths)
    assert "exists already" in command(*arguments).err


def test_an_evaluation_that_fails_is_a_warning_and_a_status(
    command: Command, model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    out, result = tmp_path / "out", tmp_path / "result.json"
    arguments = ["tune", data, "--out", out, "--model", model, "--json", result, *ONCE]
    with monkeypatch.context() as patch:
        patch.setattr("retrieval_prompts.experiments.retrieval._evaluate", fail)
        done = command(*arguments)
    assert done.code == 1
    assert done.err.splitlines()[-1] == (
        f"warning: the prompts are saved in {out}, but their evaluation failed ([Errno 28] No space left on device); "
        "the same command evaluates them again without training"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
    monkeypatch.setattr(tuning, "info_nce", None)
    assert command(*arguments).code == 0
    assert json.loads(result.read_text())["systems"]["tuned"]


def test_two_runs_into_one_output(command: Command, model: Path, data: Path, tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from retrieval_prompts.files import locked\n"
        "with locked(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    for name, arguments in (
        ("out", ["tune", data, "--out", tmp_path / "out"]),
        ("r.json", ["tune", data, "--out", tmp_path / "out", "--json", tmp_path / "r.json"]),
        ("index", ["index", data, "--out", tmp_path / "index"]),
        ("run", ["evaluate", data, "--run", tmp_path / "run"]),
        (
            "bench/results.json",
            ["beir", "--datasets", data.name, "--data-dir", data.parent, "--out", tmp_path / "bench"],
        ),
    ):
        with subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path / name)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == "held\n"
            refused(command(*arguments, "--model", model), f"{tmp_path / name} is being written by another run; wait")
            other.communicate("")
    assert list(tmp_path.iterdir()) == []


def test_sigterm_clears_away_and_has_its_status(
    command: Command, model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def terminated(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("retrieval_prompts.prompts.folder.write_json", terminated)  # half of the folder is written
    done = command("tune", data, "--model", model, "--out", tmp_path / "out", *ONCE)
    assert done.code == 143
    assert done.err.splitlines()[-1] == "terminated; the same command goes on from where it was"
    assert "Traceback" not in done.err
    assert [path.suffix for path in tmp_path.iterdir()] == [".partial"]
    assert signal.getsignal(signal.SIGTERM) == before


def _threads() -> int:
    import torch

    return torch.get_num_threads()


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(28, "No space left on device")])
def test_what_the_system_refuses_is_one_line(
    command: Command, model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("retrieval_prompts.prompts.folder.write_bytes", fail)
    done = command("tune", data, "--model", model, "--out", tmp_path / "out", *ONCE)
    assert done.code == 2
    assert done.err.splitlines()[-1] == f"error: {error}"
    assert "Traceback" not in done.err
    assert [path.suffix for path in tmp_path.iterdir()] == [".partial"]  # the work is not lost

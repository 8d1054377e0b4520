"""A command that is killed at any write, rename or delete loses nothing: the same command ends as if it had not been.

FAULTS=all (`make faults`) tries every event of every command, else a few of the shortest are tried.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("killing.py")
ALL = os.environ.get("FAULTS") == "all"
STEP = "1" if ALL else "9"
COMMANDS = ("index",) + ("tune", "evaluate", "beir", "tune pictures", "index pictures") * ALL


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("killed")


@pytest.mark.parametrize("name", COMMANDS)
def test_a_killed_command_goes_on_to_the_same_end(name: str, place: Path) -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, str(place), STEP, name],
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    trials = [json.loads(line) for line in done.stdout.splitlines()]
    assert {trial["overwrite"] for trial in trials} == {False, True}
    assert [trial for trial in trials if trial["failed"] or trial["lost"] or trial["stray"] or trial["other"]] == []

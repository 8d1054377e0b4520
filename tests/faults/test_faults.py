"""Whatever fault comes: a command ends as if undisturbed, goes on to that end, or says in one line what is wrong.

A few of each kind are tried here; `make faults` injects all, and counts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from faults import killing

from retrieval_prompts.files import writing

SCRIPT = Path(__file__).parents[2] / "eval" / "inject_faults.py"


def test_a_few_faults_of_each_kind(tmp_path: Path) -> None:
    result = tmp_path / "faults.json"
    done = subprocess.run(
        [sys.executable, SCRIPT, "--few", "--json", result],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    found = json.loads(result.read_text())
    assert found["not_good"] == []
    assert found["table"]["all"]["injected"] >= 20
    assert done.returncode == 0, done.stderr
    assert "| all | " in done.stdout


def test_a_file_that_was_written_after_its_sync_is_not_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("replace", "unlink", "rmdir", "fsync"):
        monkeypatch.setattr(os, name, getattr(os, name))  # as they are put back
    monkeypatch.setattr(writing, "_exchange", writing._exchange)
    monkeypatch.setattr(killing, "synced", set())
    killing.at_event(-1, lambda: None)
    for name in ("kept", "again"):
        with (tmp_path / name).open("wb") as file:
            file.write(b"x")
            file.flush()
            os.fsync(file.fileno())
    os.replace(tmp_path / "kept", tmp_path / "renamed")
    with (tmp_path / "again").open("ab") as file:
        file.write(b"y")
    (tmp_path / "never").write_bytes(b"x")
    assert sorted(path.name for path in killing.unsynced(tmp_path)) == ["again", "never"]

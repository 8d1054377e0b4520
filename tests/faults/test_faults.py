"""Whatever fault comes: a command ends as if undisturbed, goes on to that end, or says in one line what is wrong.

A few of each kind are tried here; `make faults` injects all, and counts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

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

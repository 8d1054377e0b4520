"""Odd files and options are read or refused in one line: a few of each kind, always the same (all: make fuzz)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("fuzzing.py")


def test_odd_files_are_read_or_refused() -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, "--examples", "40"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    tried = re.search(r"^([\d,]+) cases of (\d+) readers in .* 0 faults$", done.stdout, re.MULTILINE)
    assert tried is not None and int(tried[1].replace(",", "")) > 700 and int(tried[2]) > 30

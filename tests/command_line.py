"""Runs a command line in this process, as an ordinary process would: its status, its output, its warnings."""

from __future__ import annotations

import json
import re
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Command = Callable[..., Done]


def command_line(
    program: str,
    main: Callable[[], object],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    columns: int = 120,
) -> Command:
    """The command as a function of its arguments; progress bars are left out of what it wrote to standard error."""

    def run(*arguments: object) -> Done:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", [program, *map(str, arguments)])
        with warnings.catch_warnings():
            warnings.resetwarnings()
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", UserWarning)
            with pytest.raises(SystemExit) as ended:
                main()
        captured = capsys.readouterr()
        lines = re.split(r"[\r\n]+", captured.err)
        err = "".join(f"{line}\n" for line in lines if line and "%|" not in line)
        return Done(int(ended.value.code or 0), captured.out, err)

    monkeypatch.setenv("COLUMNS", str(columns))
    return run

"""The command line of the core, for all of its tests."""

from __future__ import annotations

import pytest
from command_line import Command, command_line


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    from retrieval_prompts.cli import app

    return command_line("retrieval-prompts", app.main, monkeypatch, capsys)

"""What the command lines say of themselves."""

from __future__ import annotations

import re

import pytest
import typer
from typer.testing import CliRunner

from multimodal.cli.app import app as images
from retrieval_prompts import __version__
from retrieval_prompts.cli.app import app as texts


@pytest.mark.parametrize("app", [texts, images], ids=["texts", "images"])
def test_the_version_is_said(app: typer.Typer) -> None:
    done = CliRunner().invoke(app, ["--version"])
    assert done.exit_code == 0
    assert done.output.split()[-1] == __version__


@pytest.mark.parametrize("app", [texts, images], ids=["texts", "images"])
def test_without_a_command_the_commands_are_shown(app: typer.Typer) -> None:
    done = CliRunner().invoke(app, [])
    assert done.exit_code == 2
    assert "Commands:" in done.output


def test_options_of_tune_are_in_groups_each_once() -> None:
    done = CliRunner().invoke(texts, ["tune", "--help"])
    headings = re.findall(r"^(\w.*):$", done.output, flags=re.MULTILINE)
    assert headings == ["Arguments", "Options", "What is read", "The model", "The prompt", "Its training"]
    assert "--side" in done.output.split("The prompt:")[1].split("Its training:")[0]
    assert done.output.count("  --epochs ") == 1
    assert done.output.count("retrieval-prompts tune ") == 2, "two examples"

"""Importing the package and asking for help stay light."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from fresh_process import loaded_after

import retrieval_prompts


def test_import_is_light() -> None:
    assert loaded_after("import retrieval_prompts") == set()


def test_errors_and_data_are_light() -> None:
    names = "DataWarning, Dataset, TuneSettings, UserError, load, load_corpus"
    assert loaded_after(f"from retrieval_prompts import {names}") == set()


@pytest.mark.parametrize("arguments", [["--help"], ["tune", "--help"], ["evaluate", "--help"], ["export", "--help"]])
def test_help_is_light(arguments: list[str]) -> None:
    program = f"""
import sys
from retrieval_prompts.cli.app import main
sys.argv = ["retrieval-prompts", *{arguments}]
try:
    main()
except SystemExit as end:
    assert end.code == 0, end.code
"""
    assert loaded_after(program) == set()


def test_the_command_is_installed() -> None:
    command = Path(sys.executable).parent / "retrieval-prompts"
    run = subprocess.run([command, "--help"], capture_output=True, text=True, check=True)
    assert "tune" in run.stdout


def test_all_is_what_can_be_imported() -> None:
    namespace: dict[str, object] = {}
    exec("from retrieval_prompts import *", namespace)
    assert set(namespace) - {"__builtins__"} == set(retrieval_prompts.__all__)
    assert set(retrieval_prompts.__all__) == set(retrieval_prompts._HOMES)
    assert set(retrieval_prompts.__all__) <= set(dir(retrieval_prompts))
    assert sorted(retrieval_prompts.__all__) == retrieval_prompts.__all__
    assert retrieval_prompts.__version__


def test_an_unknown_name() -> None:
    with pytest.raises(AttributeError, match="module 'retrieval_prompts' has no attribute 'Biencoder'"):
        retrieval_prompts.Biencoder  # noqa: B018

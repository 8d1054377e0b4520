"""retrieval-prompts verify."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from retrieval_prompts.cli import artifacts, console
from retrieval_prompts.cli.options import JsonFile, Overwrite

Paths = Annotated[
    list[Path],
    typer.Argument(help="prompts, indexes, exports, runs, checkpoints, caches; or folders that hold some"),
]


def verify(paths: Paths, json_file: JsonFile = None, overwrite: Overwrite = False) -> None:
    """Say which artifacts are as they were written, one a line; status 1 where one is not. Every byte is read."""
    say_verdicts(paths, json_file, overwrite=overwrite)


def say_verdicts(
    paths: list[Path],
    json_file: Path | None,
    *,
    overwrite: bool,
    more: tuple[tuple[str, str, artifacts.Check], ...] = (),
) -> None:
    """Print the verdicts on what lies at the paths, and end with status 1 where not all is sound."""
    console.check_outputs(json_file, overwrite=overwrite)
    say, rows, wrong = console.printer(json_file), [], False
    for path in paths:
        found = False
        for verdict in artifacts.verdicts(path, more):
            say(verdict.line())
            rows.append(asdict(verdict) | {"path": str(verdict.path)})
            found, wrong = True, wrong or verdict.sound is False
        if not found:
            say(f"{path}: holds no artifact that {'these packages know' if more else 'this package knows'}")
            wrong = True
    if json_file is not None:
        console.write_result(json_file, rows)
    if wrong:
        raise typer.Exit(1)

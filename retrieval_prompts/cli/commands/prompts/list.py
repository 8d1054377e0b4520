"""retrieval-prompts list."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from retrieval_prompts.cli import console
from retrieval_prompts.cli.options import JsonFile, Overwrite

HEADER = ["name", "prompt", "tuned on", "dev", "test", "written", "model", "version"]


def list_prompts(
    folder: Annotated[Path, typer.Argument(help="a folder that holds prompt folders, at any depth")],
    json_file: JsonFile = None,
    overwrite: Overwrite = False,
) -> None:
    """List the prompt folders in a folder: what each is, and what it gained in points of nDCG@10 when it was tuned."""
    console.check_outputs(json_file, overwrite=overwrite)
    from retrieval_prompts.evaluation.tables import rich_table
    from retrieval_prompts.prompts.shelf import shelf

    found, say = shelf(folder), console.printer(json_file)
    if json_file is not None:
        console.write_result(json_file, [each.to_json() for each in found])
    if sound := [each for each in found if not each.problem]:
        columns = [column for column in zip(HEADER, *map(_row, sound), strict=True) if any(column[1:])]
        header, *rows = zip(*columns, strict=True)
        say(rich_table(rows, header))
    for each in found:
        if each.problem:
            say(f"{each.path}: cannot be read: {each.problem}")
        elif each.description:
            say(f"{each.name}: {' '.join(each.description.split())}")
    if not found:
        say(f"{folder}: holds no prompt folder")


def _row(entry: Any) -> list[str]:
    lengths = "+".join(map(str, entry.lengths.values()))
    sides = "" if set(entry.lengths) <= {"query"} else ", " + "+".join(entry.lengths)
    made = f", {entry.made}" if entry.made else ""
    strength = "" if entry.strength == 1 else f", strength {entry.strength:g}"
    gains = [f"{100 * entry.gains[split]:+.1f}" if split in entry.gains else "" for split in ("dev", "test")]
    what = f"{entry.kind} {lengths}".strip() + sides + made + strength
    return [entry.name, what, entry.tuned_on, *gains, entry.written, entry.model, entry.version]

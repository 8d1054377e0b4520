"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from retrieval_prompts.errors import UserError

DataFolder = Annotated[Path, typer.Argument(help="BEIR folder: corpus.jsonl, queries.jsonl, qrels/*.tsv (or .gz)")]
Model = Annotated[str | None, typer.Option(help="name, local folder or hub id  [default: all-MiniLM-L6-v2]")]
Prompts = Annotated[Path | None, typer.Option(help="a prompt folder")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="replace an output that exists")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="write the result here as JSON; - for standard output")]
Report = Annotated[Path | None, typer.Option(help="write a page to look at here: one HTML file")]
Cache = Annotated[Path | None, typer.Option(help="folder of document vectors  [default: the user's cache]")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, mps  [default: the best there is]")]
Trust = Annotated[bool, typer.Option("--trust-remote-code", help="run code that a model brings along")]
Strength = Annotated[float | None, typer.Option(help="0 is the frozen model, 1 the whole prompt  [default: as saved]")]


def check_strength(strength: float | None, prompts: Path | None) -> None:
    """Raises UserError for a strength without prompts."""
    if strength is not None and prompts is None:
        raise UserError("--strength is that of a prompt; pass --prompts as well")

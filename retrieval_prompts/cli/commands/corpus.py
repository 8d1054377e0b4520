"""retrieval-prompts corpus."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from retrieval_prompts.cli import console
from retrieval_prompts.cli.options import AS_SAID, JsonFile, Model, Overwrite, Trust, repeated, with_conventions
from retrieval_prompts.cli.sources import Reading, tell, with_sources
from retrieval_prompts.towers.conventions import Conventions


@with_sources
@with_conventions
def corpus(
    out: Annotated[Path, typer.Option(help="the data folder to write")],
    reading: Reading,
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            help="documents: CSV, TSV, JSON, JSONL, Parquet (.gz, .zst too), Hugging Face data sets on disk, folders "
            "of .txt, .md, .html, .pdf, .docx; globs; ir_datasets:NAME. None: the texts of the judgements"
        ),
    ] = None,
    test: Annotated[float, typer.Option(help="share of judged queries for test, where there are no splits")] = 0.2,
    dev: Annotated[float, typer.Option(help="the same for dev")] = 0.1,
    seed: Annotated[int, typer.Option(help="of that division")] = 0,
    model: Model = None,
    conventions: Conventions = AS_SAID,
    json_file: JsonFile = None,
    trust_remote_code: Trust = False,
    overwrite: Overwrite = False,
) -> None:
    """Make a data folder, which all commands take, of what you have: tables, folders of files, queries, clicks.

    Examples:

      retrieval-prompts corpus handbook/ --out DATA

      retrieval-prompts corpus products.parquet --judgements clicks.csv --out DATA
    """
    from retrieval_prompts.data.sources.making import make
    from retrieval_prompts.files import DATA

    console.check_outputs(json_file, overwrite=overwrite)
    console.claim(out, overwrite=overwrite, holds=DATA)
    say = console.printer(json_file)
    wanted = reading.sources(sources or [], test=test, dev=dev, seed=seed)

    def load() -> Any:
        from retrieval_prompts.towers.text import DEFAULT_MODEL, load_tower

        return load_tower(
            model or DEFAULT_MODEL, device="cpu", trust_remote_code=trust_remote_code, conventions=conventions
        )

    made = make(out, wanted, reading.chunking(wanted, load), overwrite=overwrite)
    if json_file is not None:
        console.write_result(json_file, asdict(made))
    tell(made, say)
    splits = "".join(f", {count:,} judged {name}" for name, count in made.splits.items())
    cut = f"{made.chunks:,} chunks of " if made.chunks else ""
    say(f"{out}: {cut}{made.documents:,} documents, {made.queries:,} queries{splits}")
    used = "tune {} --out PROMPTS" if made.splits else "index {} --out INDEX"
    asked = repeated(model, conventions, trust_remote_code)
    say(f"next: retrieval-prompts {used.format(shlex.quote(str(out)))}{asked}")

"""retrieval-prompts export."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from retrieval_prompts.cli import console
from retrieval_prompts.cli.options import AS_SAID, Device, Overwrite, Strength, Trust, with_conventions
from retrieval_prompts.towers.conventions import Conventions


@with_conventions
def export(
    prompts: Annotated[Path, typer.Argument(help="a prompt folder of input prompts")],
    out: Annotated[Path, typer.Option(help="the checkpoint folder to write")],
    model: Annotated[str | None, typer.Option(help="the base model, when it has moved  [default: as saved]")] = None,
    conventions: Conventions = AS_SAID,
    strength: Strength = None,
    device: Device = None,
    trust_remote_code: Trust = False,
    overwrite: Overwrite = False,
) -> None:
    """Write a stock sentence-transformers checkpoint that every tool loads."""
    from retrieval_prompts.files import CHECKPOINT

    console.claim(out, overwrite=overwrite, holds=CHECKPOINT)
    from retrieval_prompts.interop.export import check_exportable
    from retrieval_prompts.interop.sharing.hub import located
    from retrieval_prompts.prompts.folder import read_description

    saved = read_description(located(prompts))
    whole = saved["strength"] if strength is None else strength
    check_exportable(saved["kind"], whole, feedback="feedback" in saved, mixture="mixture" in saved)
    from retrieval_prompts.biencoder import BiEncoder

    biencoder = BiEncoder.load(
        model, prompts, device=device, strength=strength, trust_remote_code=trust_remote_code, **asdict(conventions)
    )
    biencoder.export(out, overwrite=overwrite)
    console.say(f"{out}: a stock sentence-transformers checkpoint, compared with these prompts on sample texts")
    console.say("its plain .encode() is the frozen model: use .encode_query() and .encode_document(), or prompt_name=")
    console.say(f'next: SentenceTransformer("{out}").encode_query("a question")')

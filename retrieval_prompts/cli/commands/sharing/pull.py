"""retrieval-prompts pull."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from retrieval_prompts.cli import console
from retrieval_prompts.cli.options import Overwrite


def pull(
    repository: Annotated[
        str, typer.Argument(help="a repository on the Hugging Face Hub: user/name, user/name@branch")
    ],
    out: Annotated[Path, typer.Option(help="the prompt folder to write")],
    overwrite: Overwrite = False,
) -> None:
    """Download prompts from the Hugging Face Hub into a prompt folder (--prompts hf:user/name does without one)."""
    from retrieval_prompts.files import PROMPTS

    console.claim(out, overwrite=overwrite, holds=PROMPTS)
    from retrieval_prompts.interop.sharing.hub import fetch
    from retrieval_prompts.prompts.folder import load_prompts, save_prompts

    prompts = load_prompts(fetch(repository.removeprefix("hf:")))
    save_prompts(out, prompts, overwrite=overwrite)
    console.say(f"{out}: {prompts.kind} prompts for the {' and '.join(prompts.vectors)} side of {prompts.base['name']}")

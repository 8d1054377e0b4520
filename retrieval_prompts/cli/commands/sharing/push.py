"""retrieval-prompts push."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from retrieval_prompts.cli import console
from retrieval_prompts.cli.options import AS_SAID, Device, Trust, with_conventions
from retrieval_prompts.errors import UserError
from retrieval_prompts.towers.conventions import Conventions


@with_conventions
def push(
    prompts: Annotated[Path, typer.Argument(help="a prompt folder")],
    repository: Annotated[str, typer.Argument(help="where to on the Hugging Face Hub: user/name")],
    private: Annotated[bool, typer.Option("--private", help="a repository that is made is private")] = False,
    exported: Annotated[
        bool, typer.Option("--exported", help="upload the stock checkpoint as well (input prompts)")
    ] = False,
    base_model: Annotated[
        str | None, typer.Option(help="the base model's name on the hub, where the prompts name a folder")
    ] = None,
    license: Annotated[str | None, typer.Option(help="of the prompts, for the model card: apache-2.0 ...")] = None,
    revision: Annotated[str | None, typer.Option(help="a branch that exists  [default: main]")] = None,
    message: Annotated[str, typer.Option(help="of the commit")] = "Upload soft prompts",
    conventions: Conventions = AS_SAID,
    device: Device = None,
    trust_remote_code: Trust = False,
) -> None:
    """Upload a prompt folder with a model card to the Hugging Face Hub."""
    from retrieval_prompts.interop.sharing.hub import located, push
    from retrieval_prompts.prompts.folder import load_prompts

    if conventions != AS_SAID and not exported:
        raise UserError(
            f"{', '.join(conventions.options())}: used only with --exported, without which no model is loaded"
        )
    saved = load_prompts(located(prompts))
    export = None
    if exported:
        from retrieval_prompts.biencoder import BiEncoder
        from retrieval_prompts.interop.export import check_exportable

        feedback, mixture = saved.feedback is not None, saved.mixture is not None
        check_exportable(saved.kind, saved.strength, feedback=feedback, mixture=mixture)
        export = BiEncoder.load(
            prompts=prompts, device=device, trust_remote_code=trust_remote_code, **asdict(conventions)
        ).export
    address = push(
        saved,
        repository,
        base_model=base_model,
        license=license,
        export=export,
        private=private,
        revision=revision,
        commit_message=message,
    )
    console.say(f"{address}: {'prompts and a stock checkpoint' if exported else 'prompts'}, with a model card")
    console.say(f'next: retrieval-prompts search INDEX "a question" --prompts hf:{repository}')

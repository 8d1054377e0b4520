"""The command line: multimodal-prompts. Every command is a file in `commands`."""

from __future__ import annotations

import typer

from multimodal.commands.classify import classify
from multimodal.commands.evaluate import evaluate
from multimodal.commands.export import export
from multimodal.commands.index import index
from multimodal.commands.search import search
from multimodal.commands.tune import tune
from retrieval_prompts import console

app = typer.Typer(
    help="Soft prompts for a frozen CLIP: classify with a few images a class, search images with words.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (tune, classify, evaluate, index, search, export):
    app.command()(command)


def main() -> None:
    """Run the command line; see `console.run`."""
    console.run(app)


if __name__ == "__main__":
    main()

"""The command line: multimodal-prompts. Every command is a file in `commands`."""

from __future__ import annotations

import typer

from multimodal.cli.commands.classify import classify
from multimodal.cli.commands.evaluate import evaluate
from multimodal.cli.commands.export import export
from multimodal.cli.commands.index import index
from multimodal.cli.commands.inspect import inspect
from multimodal.cli.commands.search import search
from multimodal.cli.commands.serve import serve
from multimodal.cli.commands.tune import tune
from multimodal.cli.commands.verify import verify
from retrieval_prompts.cli import console
from retrieval_prompts.cli.grouped import Grouped, version
from retrieval_prompts.cli.options import Commands

app = typer.Typer(
    cls=Commands,
    help="Soft prompts for a frozen CLIP: classify with a few images a class, search images with words.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (tune, classify, evaluate, inspect, index, search, serve, export, verify):
    app.command(cls=Grouped)(command)
app.callback(invoke_without_command=True, help=app.info.help)(version)


def main() -> None:
    """Run the command line; see `console.run`."""
    console.run(app)


if __name__ == "__main__":
    main()

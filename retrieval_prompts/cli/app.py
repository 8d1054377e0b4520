"""The command line: retrieval-prompts. Every command is a file in `commands`."""

from __future__ import annotations

import typer

from retrieval_prompts.cli import console
from retrieval_prompts.cli.commands.corpus import corpus
from retrieval_prompts.cli.commands.prompts.diff import diff
from retrieval_prompts.cli.commands.prompts.inspect import inspect
from retrieval_prompts.cli.commands.prompts.list import list_prompts
from retrieval_prompts.cli.commands.prompts.merge import merge
from retrieval_prompts.cli.commands.searching.adopt import adopt
from retrieval_prompts.cli.commands.searching.index import index
from retrieval_prompts.cli.commands.searching.search import search
from retrieval_prompts.cli.commands.searching.serve import serve
from retrieval_prompts.cli.commands.sharing.convert import convert
from retrieval_prompts.cli.commands.sharing.export import export
from retrieval_prompts.cli.commands.sharing.pull import pull
from retrieval_prompts.cli.commands.sharing.push import push
from retrieval_prompts.cli.commands.sharing.verify import verify
from retrieval_prompts.cli.commands.tuning.beir import beir
from retrieval_prompts.cli.commands.tuning.classify import classify
from retrieval_prompts.cli.commands.tuning.compare import compare
from retrieval_prompts.cli.commands.tuning.evaluate import evaluate
from retrieval_prompts.cli.commands.tuning.generator import generator
from retrieval_prompts.cli.commands.tuning.tune import tune
from retrieval_prompts.cli.grouped import Grouped, version
from retrieval_prompts.cli.launched import OnMany
from retrieval_prompts.cli.options import Commands

app = typer.Typer(
    cls=Commands,
    help="Soft prompts for frozen retrievers: tune a few kilobytes, keep the document index.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (corpus, tune, evaluate, beir, compare, index, adopt, search, serve):
    app.command(cls=OnMany if command is tune else Grouped)(command)
for command in (inspect, merge, diff):
    app.command(cls=Grouped)(command)
app.command("list", cls=Grouped)(list_prompts)
for command in (classify, generator, export, convert, push, pull, verify):
    app.command(cls=Grouped)(command)
app.callback(invoke_without_command=True, help=app.info.help)(version)


def main() -> None:
    """Run the command line; see `console.run`."""
    console.run(app)


if __name__ == "__main__":
    main()

"""What both command lines show of themselves: options in groups, and the version."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from retrieval_prompts.errors import UserError
from retrieval_prompts.training.processes.place import Place

ORDER = (
    "Arguments",
    "Options",
    "What is read",
    "Many machines",
    "Who may ask, and how much",
    "The model",
    "The prompt",
    "Its training",
    "A prompt for each picture",
)


class Grouped(TyperCommand):
    """A command whose help shows its options in groups, by their `rich_help_panel`, in plain text.

    `many`: it may be launched in several processes, which train together.
    """

    many = False

    def invoke(self, ctx: Any) -> Any:
        if not self.many and (place := Place.here()).several:
            raise UserError(
                f"{ctx.info_name} runs in one process, and {place.count} were launched (WORLD_SIZE); start it without "
                "torchrun or accelerate launch: retrieval-prompts tune alone trains on several"
            )
        return super().invoke(ctx)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments, then the options without a group, then each group."""
        groups: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for parameter in self.get_params(ctx):
            if (record := parameter.get_help_record(ctx)) is not None:
                of_argument = parameter.param_type_name == "argument"
                group = getattr(parameter, "rich_help_panel", None) or ("Arguments" if of_argument else "Options")
                groups.setdefault(group, []).append(record)
        for name, records in sorted(groups.items(), key=lambda group: ORDER.index(group[0])):
            if records:
                with formatter.section(name):
                    formatter.write_dl(records)


def version(
    ctx: typer.Context, wanted: Annotated[bool, typer.Option("--version", help="show the version and end")] = False
) -> None:
    """The callback of a command line."""
    if wanted:
        package = sys.modules[__name__.partition(".")[0]]  # which no floor below it may import
        typer.echo(f"{ctx.info_name} {package.__version__}")
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())
        raise typer.Exit(2)

"""Options that several commands share, and those that settings are given by: one a field, made of what it says."""

from __future__ import annotations

import functools
import inspect
import shlex
from collections.abc import Callable
from dataclasses import Field, fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer
from typer.core import TyperGroup

from retrieval_prompts.errors import UserError, shown
from retrieval_prompts.prompts.settings import Values, option_of, readers, rule_of, spoken
from retrieval_prompts.towers.conventions import Conventions


class Commands(TyperGroup):
    """Commands whose refusals of options and arguments show what could be a terminal's command, and do not send it."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Exception as error:
            if isinstance(message := getattr(error, "message", None), str):
                error.message = shown(message)  # type: ignore[attr-defined]
            raise


MODEL = "The model"  # groups of options in the help
MOST = 1000  # strengths of one run
DataFolder = Annotated[
    Path | None,
    typer.Argument(help="BEIR folder: corpus.jsonl, queries.jsonl, qrels/*.tsv (or .gz); or a source, see `corpus`"),
]
Model = Annotated[
    str | None, typer.Option(help="name, local folder or hub id  [default: all-MiniLM-L6-v2]", rich_help_panel=MODEL)
]
Prompts = Annotated[Path | None, typer.Option(help="a prompt folder")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="replace an output that exists")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="write the result here as JSON; - for standard output")]
Report = Annotated[Path | None, typer.Option("--report", help="write a page to look at here: one HTML file")]
Cache = Annotated[Path | None, typer.Option(help="folder of computed vectors  [default: the user's cache]")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, mps  [default: the best there is]", rich_help_panel=MODEL)]
Trust = Annotated[
    bool, typer.Option("--trust-remote-code", help="run code that a model brings along", rich_help_panel=MODEL)
]
Strength = Annotated[float | None, typer.Option(help="0 is the frozen model, 1 the whole prompt  [default: as saved]")]
Strengths = Annotated[
    str | None,
    typer.Option(
        "--strength",
        help="0 is the frozen model, 1 the whole prompt; several, as in 0,0.25,...,1, are compared, and dev chooses  "
        "[default: as saved]",
    ),
]
Also = Annotated[
    list[Path] | None,
    typer.Option("--also", help="what the prompts lose elsewhere: on the test split of this BEIR folder"),
]
Name = Annotated[str | None, typer.Option("--name", help="what people call these prompts; kept in the folder")]
Description = Annotated[str | None, typer.Option("--description", help="what they are for; kept in the folder")]
PromptVersion = Annotated[str | None, typer.Option("--prompt-version", help="of them, such as 1.2; kept in the folder")]
TopK = Annotated[int, typer.Option("-k", "--top-k", min=1, help="how many hits")]
Factory = Annotated[str, typer.Option(help="FAISS index string: Flat, HNSW32, IVF256,SQ8 ...")]
Nprobe = Annotated[int | None, typer.Option(help="lists that an IVF index visits")]
EfSearch = Annotated[int | None, typer.Option(help="candidates that an HNSW index keeps")]

QueryWords = Annotated[
    str | None,
    typer.Option(
        "--query-words",
        help='before each query, such as "query: "; "" for none  [default: the model\'s own]',
        rich_help_panel=MODEL,
    ),
]
DocumentWords = Annotated[
    str | None,
    typer.Option("--document-words", help="before each document  [default: the model's own]", rich_help_panel=MODEL),
]
Similarity = Annotated[
    str | None,
    typer.Option(
        "--similarity", help="of its vectors: cosine or dot  [default: the model's own]", rich_help_panel=MODEL
    ),
]
AS_SAID = Conventions()  # the default of a command's parameter: nothing was given


def with_conventions(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the options on how a model is used in place of its parameter `conventions`, which gets them.

    What is not given is as the prompts or the index were made, else as the model says (see `towers.conventions`).
    """
    added = {"query_words": QueryWords, "document_words": DocumentWords, "similarity": Similarity}

    @functools.wraps(command)
    def run(*arguments: Any, **values: Any) -> None:
        given = Conventions(**{name: values.pop(name, None) for name in added})
        command(*arguments, **values, conventions=given)

    return replaced(command, run, "conventions", [parameter_of(name, kind) for name, kind in added.items()])


def strengths_of(given: str | None) -> list[float]:
    """The numbers of --strength: one, or several with commas between, "..." for those between at even steps. None
    where it was not given. Raises UserError."""
    if given is None:
        return []
    found: list[float] = []
    parts = [part.strip() for part in given.split(",")]
    try:
        for place, part in enumerate(parts):
            if part == "...":
                step, last = found[-1] - found[-2], float(parts[place + 1])
                count = round((last - found[-1]) / step) - 1
                found += [round(found[-1] + step * number, 6) for number in range(1, min(count, MOST) + 1)]
            else:
                found.append(float(part))
    except (ValueError, IndexError, ZeroDivisionError, OverflowError):
        raise UserError(f"--strength: expected a number, or several as in 0,0.25,...,1, got {given!r}") from None
    if len(found) > MOST:
        raise UserError(f"--strength: expected at most {MOST} strengths, got more in {given!r}; take larger steps")
    return sorted(dict.fromkeys(found)) if len(found) > 1 else found


def repeated(model: str | None, conventions: Conventions, trust_remote_code: bool) -> str:
    """The options on a model that were given, for a command that is to follow."""
    given = {"--model": model} | {f"--{name.replace('_', '-')}": value for name, value in vars(conventions).items()}
    words = [f" {name} {shlex.quote(value)}" for name, value in given.items() if value is not None]
    return "".join(words) + (" --trust-remote-code" if trust_remote_code else "")


def check_strength(strength: object, prompts: object) -> None:
    """Raises UserError for a strength without prompts."""
    if strength is not None and not prompts:
        raise UserError("--strength applies to prompts; pass --prompts as well")


def check_also(also: object, prompts: object) -> None:
    """Raises UserError for other data without prompts."""
    if also and not prompts:
        raise UserError("--also shows what prompts lose elsewhere; pass --prompts as well")


def with_settings(settings: type[Values], *names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command an option for each setting (or for those named) in place of its parameter `given`.

    The command gets in `given` the settings that were given, by name.
    """
    wanted = [each for each in fields(settings) if not names or each.name in names]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def run(**values: Any) -> None:
            read = {each.name: _value(each, values.pop(each.name)) for each in wanted if values[each.name] is not None}
            command(**{name: value for name, value in values.items() if name not in unread}, given=read)

        unread = {each.name for each in wanted}
        return replaced(command, run, "given", [_option(settings, one) for one in wanted])

    return decorate


def replaced(
    command: Callable[..., None], run: Callable[..., None], name: str, by: list[inspect.Parameter]
) -> Callable[..., None]:
    """`run` with the signature of a command in which others stand in place of one parameter."""
    signature = inspect.signature(command, eval_str=True)
    parameters = []
    for each in signature.parameters.values():
        parameters += by if each.name == name else [each]
    keywords = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in parameters]
    run.__signature__ = signature.replace(parameters=keywords)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in keywords}
    return run


def _panel(settings: type[Values], of: Field[Any]) -> str:
    """The group of an option: that of the settings, else what a prompt is, or how it is trained."""
    if settings.GROUP:
        return settings.GROUP
    return "The prompt" if any(each.name == of.name for each in fields(settings.__mro__[1])) else "Its training"


def parameter_of(name: str, kind: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)


def _option(settings: type[Values], of: Field[Any]) -> inspect.Parameter:
    """A setting as an option; it is None where it was not given."""
    kind = str if rule_of(of).none else get_type_hints(settings)[of.name]
    name = f"{option_of(of)}/--no-{of.name}" if of.default is True else option_of(of)
    option = typer.Option(name, help=_help(settings, of), rich_help_panel=_panel(settings, of))
    return parameter_of(of.name, Annotated[kind | None, option])


def _help(settings: type[Values], of: Field[Any]) -> str:
    """What a setting is, its choices, and in brackets what reads it, its range and its default."""
    rule = rule_of(of)
    text = f"{rule.help}: {spoken(rule.choices)}" if rule.choices else rule.help
    default = rule.shown or _default(settings, of)
    notes = [*readers(of, settings), rule.range, f"default: {default}" if default else ""]
    shown = "; ".join(note for note in notes if note)
    return f"{text}  [{shown}]" if shown else text


def _default(settings: type[Values], of: Field[Any]) -> str:
    """The default of a setting; where kinds differ, of each that reads it: "8 input, 4 prefix"."""
    kinds: dict[object, list[str]] = {}
    for kind, defaults in settings.DEFAULTS.items():
        if kind in rule_of(of).read_by.get(settings.KIND, (kind,)):
            kinds.setdefault(defaults.get(of.name, of.default), []).append(kind)
    said = {f"{value:g}" if isinstance(value, float) else str(value): kinds[value] for value in kinds}
    if isinstance(of.default, bool) or list(said) == ["None"]:
        return "yes" if of.default else ""
    return ", ".join(said) if len(said) == 1 else ", ".join(f"{value} {'/'.join(said[value])}" for value in said)


def _value(of: Field[Any], given: Any) -> Any:
    """What an option gives to its setting: a count where there is also a word for None. Raises UserError."""
    if not (word := rule_of(of).none):
        return given
    if given == word:
        return None
    if not given.isdecimal() or not int(given):
        raise UserError(f"{option_of(of)} must be a number from 1, or {word}, got {given!r}")
    return int(given)

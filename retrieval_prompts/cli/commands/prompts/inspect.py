"""retrieval-prompts inspect."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from retrieval_prompts.cli import console
from retrieval_prompts.cli.options import (
    AS_SAID,
    Cache,
    Device,
    JsonFile,
    Overwrite,
    Strength,
    Trust,
    with_conventions,
)
from retrieval_prompts.cli.sources import AS_IT_IS, data_folder, loader
from retrieval_prompts.errors import UserError
from retrieval_prompts.towers.conventions import Conventions

if TYPE_CHECKING:
    from retrieval_prompts.experiments.inspection.claims import Claim
    from retrieval_prompts.experiments.inspection.nearest import PromptWords
    from retrieval_prompts.report.content import Report

Page = Annotated[Path | None, typer.Option("--html", "--report", help="write a page to look at here: one HTML file")]
Draws = Annotated[int, typer.Option(min=1, help="random prompts that every figure about data is compared with")]
DRAWS, QUERIES = 40, 300


@with_conventions
def inspect(
    prompts: Annotated[Path, typer.Argument(help="a prompt folder")],
    data: Annotated[
        Path | None, typer.Option(help="with judged queries: what the prompts do to them; a BEIR folder or a source")
    ] = None,
    model: Annotated[str | None, typer.Option(help="the base model, when it has moved  [default: as saved]")] = None,
    conventions: Conventions = AS_SAID,
    split: Annotated[str, typer.Option(help="of the queries")] = "test",
    queries: Annotated[int, typer.Option(min=1, help="at most this many are asked, taken evenly")] = QUERIES,
    draws: Draws = DRAWS,
    strength: Strength = None,
    html: Page = None,
    json_file: JsonFile = None,
    cache: Cache = None,
    device: Device = None,
    trust_remote_code: Trust = False,
    overwrite: Overwrite = False,
) -> None:
    """What prompts say and do, beside random prompts: words, attention, each vector left out, how queries move."""
    overwrite = hold(json_file, html, overwrite=overwrite)
    needs_data(data, {"--split": split != "test", "--queries": queries != QUERIES, "--draws": draws != DRAWS})
    from retrieval_prompts.data.beir_folder import load, with_test
    from retrieval_prompts.experiments.inspection.claims import claims, with_claims
    from retrieval_prompts.experiments.inspection.inspected import inspect as look
    from retrieval_prompts.experiments.workbench import Workbench

    say = console.printer(json_file)
    loaded = loader(
        model, prompts, device=device, strength=strength, trust_remote_code=trust_remote_code, **asdict(conventions)
    )
    bench, biencoder = None, loaded()
    if data is not None:
        dataset, _ = with_test(load(data_folder(data, None, AS_IT_IS, loaded, say, cache)))
        bench = Workbench(biencoder.tower, dataset, cache)
    with progress() as started:
        found = look(biencoder, bench, split, queries=queries, draws=draws, on_start=started)

    def page() -> Report:
        from retrieval_prompts.report.inspection_page import inspection_report

        return inspection_report(found, bench, str(prompts))

    value = {"prompts": str(prompts), **with_claims(found)}
    write(value, page, json_file=json_file, html=html, overwrite=overwrite)
    tell(say, found.words, claims(found), found.notes, html)


def hold(json_file: Path | None, html: Path | None, *, overwrite: bool) -> bool:
    """Hold the outputs. Gives whether those that exist may be replaced."""
    console.lock(json_file, html)
    overwrite = console.cut_short(json_file, html) or overwrite
    console.check_outputs(json_file, html, overwrite=overwrite)
    return overwrite


def needs_data(data: object, given: Mapping[str, bool]) -> None:
    """Refuse options that nothing reads without data. `given`: option -> is it given."""
    if data is None and (said := [option for option, there in given.items() if there]):
        raise UserError(f"without data there is no use for {', '.join(said)}; pass --data as well")


def write(
    value: Mapping[str, Any],
    page: Callable[[], Report],
    *,
    json_file: Path | None,
    html: Path | None,
    overwrite: bool,
) -> None:
    """Write what was asked for of the JSON and the page."""
    with console.together(json_file, html):
        if json_file is not None:
            console.write_result(json_file, value)
        if html is not None:
            from retrieval_prompts.report.page import write_report

            write_report(html, page(), overwrite=overwrite)


def tell(
    say: Callable[[str], None],
    words: Mapping[str, PromptWords],
    made: Sequence[Claim],
    notes: Sequence[str],
    html: Path | None,
) -> None:
    """Print what was found, and where the page is."""
    say_words(say, words)
    say_claims(say, made, notes)
    if html is not None:
        say(f"page: {html}")


def say_claims(say: Callable[[str], None], made: Sequence[Claim], notes: Sequence[str]) -> None:
    """What was found: what is beyond untrained prompts has a star."""
    from retrieval_prompts.experiments.inspection.claims import verdict

    say(f"\n{verdict(made)}")
    for claim in made:
        say(f"{'*' if claim.beyond else '-'} {claim.text}")
    for note in notes:
        say(note)


def say_words(say: Callable[[str], None], found: Mapping[str, PromptWords]) -> None:
    """The vectors in words, with the words of random vectors under them; of many, the first."""
    from retrieval_prompts.report.page import WORDS_SHOWN

    for side, words in found.items():
        say(f"{side} prompt, nearest words (cosine):")
        for number, vector in enumerate(words.vectors[:WORDS_SHOWN], 1):
            told = ", ".join(f"{word.word} {word.cosine:.2f}" for word in vector.words)
            say(f"  {number:>6}  {told}" + ("  *" if number in words.near else ""))
        if (more := len(words.vectors) - WORDS_SHOWN) > 0:
            say(f"  ... and {more:,} more")
        for row in words.random:
            say(f"  random  {', '.join(f'{word.word} {word.cosine:.2f}' for word in row)}")


@contextmanager
def progress() -> Iterator[Callable[[int], Callable[[int], object]]]:
    """A bar on standard error, which is begun with the number of encodings."""
    from tqdm import tqdm

    with tqdm(desc="inspect", unit="pass", delay=1) as bar:

        def started(total: int) -> Callable[[int], object]:
            bar.reset(total)
            return bar.update

        yield started

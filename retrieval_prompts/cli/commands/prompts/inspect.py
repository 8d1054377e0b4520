"""retrieval-prompts inspect."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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

Page = Annotated[Path | None, typer.Option("--html", "--report", help="write a page to look at here: one HTML file")]
Draws = Annotated[int, typer.Option(min=1, help="random prompts that every figure stands beside")]


@with_conventions
def inspect(
    prompts: Annotated[Path, typer.Argument(help="a prompt folder")],
    data: Annotated[
        Path | None, typer.Option(help="with judged queries: what the prompts do to them; a BEIR folder or a source")
    ] = None,
    model: Annotated[str | None, typer.Option(help="the base model, when it has moved  [default: as saved]")] = None,
    conventions: Conventions = AS_SAID,
    split: Annotated[str, typer.Option(help="of the queries")] = "test",
    queries: Annotated[int, typer.Option(min=1, help="at most so many are asked, taken evenly")] = 300,
    draws: Draws = 40,
    strength: Strength = None,
    html: Page = None,
    json_file: JsonFile = None,
    cache: Cache = None,
    device: Device = None,
    trust_remote_code: Trust = False,
    overwrite: Overwrite = False,
) -> None:
    """What prompts say and do, beside random prompts: words, attention, each vector left out, how queries move."""
    console.lock(json_file, html)
    overwrite = console.cut_short(json_file, html) or overwrite
    console.check_outputs(json_file, html, overwrite=overwrite)
    if data is None and split != "test":
        raise UserError("--split is that of the data; pass --data as well")
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
    with console.together(json_file, html):
        if json_file is not None:
            console.write_result(json_file, {"prompts": str(prompts), **with_claims(found)})
        if html is not None:
            from retrieval_prompts.report.inspection_page import inspection_report
            from retrieval_prompts.report.page import write_report

            write_report(html, inspection_report(found, bench, str(prompts)), overwrite=overwrite)
    say_words(say, found.words)
    say_claims(say, claims(found), found.notes)
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
    """The vectors in words, with the words of random vectors under them."""
    for side, words in found.items():
        say(f"{side} prompt, nearest words (cosine):")
        for number, vector in enumerate(words.vectors, 1):
            told = ", ".join(f"{word.word} {word.cosine:.2f}" for word in vector.words)
            say(f"  {number:>6}  {told}" + ("  *" if number in words.near else ""))
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

"""multimodal-prompts inspect."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from multimodal.cli.options import ClassFile, Model, Pretrained, QuickGelu, load, load_classifier
from retrieval_prompts.cli import console
from retrieval_prompts.cli.commands.prompts.inspect import Draws, Page, progress, say_claims, say_words
from retrieval_prompts.cli.options import Cache, Device, JsonFile, Overwrite
from retrieval_prompts.errors import UserError


def inspect(
    prompts: Annotated[Path, typer.Argument(help="a prompt folder")],
    data: Annotated[str | None, typer.Option(help="labelled pictures: what the context does to them")] = None,
    split: Annotated[str, typer.Option(help="of the pictures")] = "test",
    draws: Draws = 40,
    class_file: ClassFile = None,
    model: Model = None,
    pretrained: Pretrained = None,
    quick_gelu: QuickGelu = None,
    html: Page = None,
    json_file: JsonFile = None,
    cache: Cache = None,
    device: Device = None,
    overwrite: Overwrite = False,
) -> None:
    """What a context says and does, beside random contexts: words, each vector left out, how classes move."""
    from multimodal.data.caption_files import is_captions

    console.lock(json_file, html)
    overwrite = console.cut_short(json_file, html) or overwrite
    console.check_outputs(json_file, html, overwrite=overwrite)
    if data is None and (split != "test" or class_file is not None):
        raise UserError("--split and --class-file are those of the data; pass --data as well")
    if data is not None and is_captions(data):
        raise UserError(f"{data} has captions; expected labelled pictures, of which contexts tell the classes apart")
    from multimodal.experiments.context_inspection import claims
    from multimodal.experiments.context_inspection import inspect as look

    say = console.printer(json_file)
    loaded = load(data, class_file) if data is not None else None
    classifier = load_classifier(prompts, model, pretrained, device, None, quick_gelu)
    with progress() as started:
        found = look(classifier, loaded, split, draws=draws, cache=cache, on_start=started)
    with console.together(json_file, html):
        if json_file is not None:
            console.write_result(json_file, {"prompts": str(prompts), **found.to_json()})
        if html is not None:
            from multimodal.report.context_page import context_report
            from retrieval_prompts.report.page import write_report

            write_report(html, context_report(found, str(prompts)), overwrite=overwrite)
    say_words(say, found.words)
    say_claims(say, claims(found), found.notes)
    if html is not None:
        say(f"page: {html}")

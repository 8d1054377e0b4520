"""multimodal-prompts inspect."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from multimodal.cli.options import ClassFile, Model, Pretrained, QuickGelu, load, load_classifier
from retrieval_prompts.cli import console
from retrieval_prompts.cli.commands.prompts.inspect import (
    DRAWS,
    Draws,
    Page,
    hold,
    needs_data,
    progress,
    tell,
    write,
)
from retrieval_prompts.cli.options import Cache, Device, JsonFile, Overwrite
from retrieval_prompts.errors import UserError

if TYPE_CHECKING:
    from retrieval_prompts.report.content import Report


def inspect(
    prompts: Annotated[Path, typer.Argument(help="a prompt folder")],
    data: Annotated[str | None, typer.Option(help="labelled pictures: what the context does to them")] = None,
    split: Annotated[str, typer.Option(help="of the pictures")] = "test",
    draws: Draws = DRAWS,
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

    overwrite = hold(json_file, html, overwrite=overwrite)
    needs_data(data, {"--split": split != "test", "--class-file": class_file is not None, "--draws": draws != DRAWS})
    if data is not None and is_captions(data):
        raise UserError(f"{data} has captions; expected labelled pictures, of which contexts tell the classes apart")
    from multimodal.experiments.context_inspection import claims
    from multimodal.experiments.context_inspection import inspect as look

    say = console.printer(json_file)
    loaded = load(data, class_file) if data is not None else None
    classifier = load_classifier(prompts, model, pretrained, device, None, quick_gelu)
    with progress() as started:
        found = look(classifier, loaded, split, draws=draws, cache=cache, on_start=started)

    def page() -> Report:
        from multimodal.report.context_page import context_report

        return context_report(found, str(prompts))

    value = {"prompts": str(prompts), **found.to_json()}
    write(value, page, json_file=json_file, html=html, overwrite=overwrite)
    tell(say, found.words, claims(found), found.notes, html)

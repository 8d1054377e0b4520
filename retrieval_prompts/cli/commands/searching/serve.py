"""retrieval-prompts serve."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retrieval_prompts.cli.options import AS_SAID, Device, Trust, with_conventions
from retrieval_prompts.cli.serving import Serving, with_serving
from retrieval_prompts.towers.conventions import Conventions

if TYPE_CHECKING:
    from retrieval_prompts.serving.application import Application


@with_serving()
@with_conventions
def serve(
    index: Annotated[str, typer.Argument(help="an index folder")],
    serving: Serving,
    model: Annotated[str | None, typer.Option(help="the model, when it has moved  [default: the index's own]")] = None,
    conventions: Conventions = AS_SAID,
    device: Device = None,
    trust_remote_code: Trust = False,
) -> None:
    """Serve an index with many prompts over HTTP: /search, /v1/embeddings as OpenAI's clients ask, a page at /.

    retrieval-prompts serve INDEX --prompts legal=PROMPTS/legal --prompts medical=PROMPTS/medical
    """

    def opened(named: dict[str, Path]) -> tuple[Application, str]:
        from retrieval_prompts.serving.limits import Limits
        from retrieval_prompts.serving.served import open_shelf
        from retrieval_prompts.serving.web import Web

        asked = {"model": model, "conventions": conventions, "device": device, "trust_remote_code": trust_remote_code}
        shelf = open_shelf(index, named, serving.prompts_root, **asked)
        limits = Limits(**serving.limits(shelf.searcher.biencoder.tower.device.type))
        return Web(shelf, limits), f"{len(shelf.searcher.index):,} documents"

    serving.start(opened)

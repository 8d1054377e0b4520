"""multimodal-prompts serve."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from multimodal.cli.options import Pretrained, QuickGelu
from retrieval_prompts.cli import console
from retrieval_prompts.cli.options import Device
from retrieval_prompts.cli.serving import ACCESS, Serving, with_serving
from retrieval_prompts.errors import UserError

if TYPE_CHECKING:
    from retrieval_prompts.serving.application import Application

BODY, HELD = 16 << 20, 256 << 20  # bytes of a request, and of all that wait


@with_serving(max_body=BODY)
def serve(
    index: Annotated[Path, typer.Argument(help="an index folder of pictures")],
    serving: Serving,
    max_pixels: Annotated[
        int, typer.Option(min=1, help="of a picture that is sent", rich_help_panel=ACCESS)
    ] = 50_000_000,
    max_classes: Annotated[int, typer.Option(min=1, help="of a request", rich_help_panel=ACCESS)] = 1000,
    images: Annotated[
        Path | None, typer.Option(help="where the pictures are  [default: where the index says]; others are not shown")
    ] = None,
    model: Annotated[str | None, typer.Option(help="the model, when it has moved  [default: the index's own]")] = None,
    pretrained: Pretrained = None,
    quick_gelu: QuickGelu = None,
    device: Device = None,
) -> None:
    """Serve an index of images with many prompts over HTTP: /search by words or a picture, /classify, a page at /.

    multimodal-prompts serve INDEX --prompts birds=PROMPTS/birds --prompts food=PROMPTS/food
    """
    if images is not None and not images.is_dir():
        raise UserError(f"{images} is not a folder; --images expects the one that the pictures are in")

    def opened(named: dict[str, Path]) -> tuple[Application, str]:
        from multimodal.serving.asked import PictureLimits
        from multimodal.serving.served import PictureShelf
        from multimodal.serving.web import PictureWeb
        from multimodal.vectors.image_index import open_with_model

        found, clip = open_with_model(index, model, pretrained, device=device, quick_gelu=quick_gelu)
        shelf = PictureShelf(found, clip, named, serving.prompts_root)
        held = max(HELD, 2 * serving.max_body)
        limits = PictureLimits(**serving.limits(clip.device.type), held=held, pixels=max_pixels, classes=max_classes)
        web = PictureWeb(shelf, limits, images)
        try:
            web.thumbnails(0)
        except UserError as error:
            console.warn(f"pictures of hits may not be shown: {error}")
        return web, f"{len(found):,} pictures"

    serving.start(opened)

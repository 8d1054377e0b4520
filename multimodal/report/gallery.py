"""One HTML page of pictures: the hits of a search, or predictions with their bars. Knows no model and no index.

The file stands alone: pictures are thumbnails inside it, and there is no script and no address it could load from.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from retrieval_prompts.errors import UserError
from retrieval_prompts.report.page import fill

if TYPE_CHECKING:
    from PIL.Image import Image

LIMIT = 60  # figures on a page
SIDE = 360  # longest side of a thumbnail in pixels
QUALITY = 78


@dataclass(frozen=True)
class Bar:
    """One class of a prediction: its probability in [0, 1], and whether it is the right one, where that is known."""

    name: str
    probability: float
    right: bool = False

    @property
    def percent(self) -> str:
        return f"{100 * min(max(self.probability, 0.0), 1.0):.1f}"


@dataclass(frozen=True)
class Figure:
    """A picture with its words.

    Args:
        load: gives the picture; called only if the figure is shown. UserError or OSError: a note takes its place.
        title: the name of the picture, short.
        place: its whole path, shown where one points at the title; may be empty.
        text: a label or captions; may be empty.
        note: a score, for instance; may be empty.
        bars: the classes of a prediction, best first.
        right: whether the prediction is right; None where that is not known, or nothing was predicted.
    """

    load: Callable[[], Image]
    title: str
    text: str = ""
    note: str = ""
    bars: tuple[Bar, ...] = ()
    right: bool | None = None
    place: str = ""


def page(
    heading: str,
    figures: Sequence[Figure],
    *,
    lead: Sequence[str] = (),
    lines: Sequence[str] = (),
    foot: str = "",
    query: Figure | None = None,
    limit: int = LIMIT,
) -> str:
    """The page as HTML. Everything but the thumbnails is escaped text.

    Args:
        lead: what to know first, in sentences.
        lines: short facts under the heading: what was searched, with which model.
        foot: a sentence at the end, on how to read the numbers.
        query: the picture that was searched for, where it was one.
        limit: show the first so many figures; the page says how many there are. At least 1.
    """
    if limit < 1:
        raise UserError(f"a page shows at least 1 picture, got a limit of {limit}")
    shown = figures[:limit]
    facts = [*lines, f"{len(shown):,} of {len(figures):,} shown"] if len(shown) < len(figures) else lines
    return fill(
        "gallery.html.j2",
        title=heading,
        lead=lead,
        facts=facts,
        foot=foot,
        query=query,
        figures=shown,
        thumbnail=_thumbnail,
    )


def thumbnail(picture: Image, side: int = SIDE) -> tuple[str, int, int]:
    """A data address of the picture, at most `side` pixels long, and its width and height. It carries no metadata."""
    from PIL import features

    small = picture.convert("RGB")
    small.thumbnail((side, side))
    kind = "WEBP" if features.check("webp") else "JPEG"
    buffer = io.BytesIO()
    small.save(buffer, kind, quality=QUALITY)
    content = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f"data:image/{kind.lower()};base64,{content}", *small.size


def _thumbnail(figure: Figure) -> tuple[str, int, int] | None:
    """None for a picture that cannot be read."""
    try:
        return thumbnail(figure.load())
    except (OSError, UserError):
        return None

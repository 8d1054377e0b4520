"""One HTML page of pictures: the hits of a search, or predictions with their bars. Knows no model and no index.

The file stands alone: pictures are thumbnails inside it, and there is no script and no address it could load from.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from retrieval_prompts.errors import UserError
from retrieval_prompts.files import write_bytes

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


@dataclass(frozen=True)
class Figure:
    """A picture with its words.

    Args:
        load: gives the picture; called only if the figure is shown. UserError or OSError: a note takes its place.
        title: the name of the picture.
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


def page(
    heading: str,
    figures: Sequence[Figure],
    *,
    lines: Sequence[str] = (),
    foot: str = "",
    query: Figure | None = None,
    limit: int = LIMIT,
) -> str:
    """The page as HTML. Everything but the thumbnails is escaped text.

    Args:
        lines: short facts under the heading: what was searched, with which model.
        foot: a sentence at the end, on how to read the numbers.
        query: the picture that was searched for, where it was one.
        limit: show the first so many figures; the page says how many there are. At least 1.
    """
    if limit < 1:
        raise UserError(f"a page shows at least 1 picture, got a limit of {limit}")
    shown = figures[:limit]
    facts = [*lines, f"{len(shown):,} of {len(figures):,} shown"] if len(shown) < len(figures) else list(lines)
    asked = f'<div class="query">{_picture(query)}</div>' if query is not None else ""
    body = "\n".join(_figure(figure, rank) for rank, figure in enumerate(shown, 1)) or "<li>Nothing was found.</li>"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{escape(heading)}</title>
<style>{STYLE}</style>
</head>
<body>
<header>{asked}<div><h1>{escape(heading)}</h1>
<p class="facts">{" ".join(f"<span>{escape(line)}</span>" for line in facts)}</p></div></header>
<main><ol class="figures">
{body}
</ol></main>
{f"<footer><p>{escape(foot)}</p></footer>" if foot else ""}
</body>
</html>
"""


def write_page(path: Path, html: str) -> None:
    """Write the page, whole or not at all."""
    write_bytes(path, html.encode())


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


def _figure(figure: Figure, rank: int) -> str:
    """One item of the list. It takes the keyboard's focus, and then shows all of its words."""
    marks = {True: '<span class="mark right">right</span>', False: '<span class="mark wrong">wrong</span>', None: ""}
    note = f'<span class="note">{escape(figure.note)}</span>' if figure.note else ""
    text = f'<p class="text">{escape(figure.text)}</p>' if figure.text else ""
    bars = f'<ol class="bars">{"".join(map(_bar, figure.bars))}</ol>' if figure.bars else ""
    return (
        f'<li><figure tabindex="0">{_picture(figure)}<figcaption>'
        f'<p class="head"><span class="rank">{rank}</span>{note}{marks[figure.right]}</p>'
        f'<p class="title">{escape(figure.title)}</p>{text}{bars}</figcaption></figure></li>'
    )


def _picture(figure: Figure) -> str:
    words = escape(f"{figure.title}: {figure.text}" if figure.text else figure.title, quote=True)
    try:
        address, width, height = thumbnail(figure.load())
    except (OSError, UserError):
        return f'<div class="picture gone" role="img" aria-label="{words}">cannot be read</div>'
    return (
        f'<div class="picture"><img src="{address}" width="{width}" height="{height}" alt="{words}" '
        'decoding="async"></div>'
    )


def _bar(bar: Bar) -> str:
    percent = f"{100 * min(max(bar.probability, 0.0), 1.0):.1f}"
    right = ' class="right"' if bar.right else ""
    said = ' <span role="img" aria-label="the right class">✓</span>' if bar.right else ""
    return (
        f'<li{right}><span class="name">{escape(bar.name)}{said}</span><span class="value">{percent}\N{NO-BREAK SPACE}%'
        f'</span><span class="bar" style="--p:{percent}%"></span></li>'
    )


STYLE = """
:root { --paper: #faf9f7; --card: #ffffff; --ink: #1d1c1a; --soft: #66625c; --line: #e4e0da; --well: #f0ede8;
  --accent: #0f6e6e; --track: #e6e2dc; --right: #1e7a3c; --wrong: #b3261e; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #141517; --card: #1d1f22; --ink: #eceae6; --soft: #a5a29c; --line: #33363a; --well: #26292d;
    --accent: #63c7c2; --track: #34383d; --right: #72cf8c; --wrong: #ff9389; } }
* { box-sizing: border-box; margin: 0; }
body { background: var(--paper); color: var(--ink); font: 16px/1.45 system-ui, -apple-system, "Segoe UI", Roboto,
  "Noto Sans", "DejaVu Sans", sans-serif; padding: clamp(1rem, 3vw, 2.5rem); max-width: 96rem; margin: 0 auto;
  overflow-wrap: anywhere; }
header { display: flex; gap: 1.25rem; align-items: center; margin-bottom: clamp(1rem, 2.5vw, 2rem); }
header .query { flex: none; width: clamp(6rem, 18vw, 10rem); border: 1px solid var(--line); border-radius: .6rem;
  overflow: hidden; }
h1 { font-size: clamp(1.35rem, 1rem + 2vw, 2.2rem); line-height: 1.2; letter-spacing: -.015em; text-wrap: balance; }
.facts { color: var(--soft); margin-top: .4rem; display: flex; flex-wrap: wrap; gap: .1rem 1.1rem; font-size: .92rem; }
ol { list-style: none; padding: 0; }
.figures { display: grid; gap: clamp(.7rem, 1.6vw, 1.25rem);
  grid-template-columns: repeat(auto-fill, minmax(min(100%, clamp(9.5rem, 22vw, 15rem)), 1fr)); }
figure { background: var(--card); border: 1px solid var(--line); border-radius: .7rem; overflow: hidden; height: 100%; }
figure:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
.picture { aspect-ratio: 4 / 3; background: var(--well); display: grid; place-items: center; overflow: hidden; }
.picture img { width: 100%; height: 100%; object-fit: contain; display: block; }
.gone { color: var(--soft); font-size: .85rem; }
figcaption { padding: .6rem .8rem .8rem; }
.head { display: flex; align-items: baseline; gap: .6rem; font-size: .85rem; color: var(--soft);
  font-variant-numeric: tabular-nums; }
.rank { color: var(--accent); font-weight: 700; }
.mark { margin-left: auto; font-weight: 600; }
.mark.right { color: var(--right); }
.mark.wrong { color: var(--wrong); }
.title { font-weight: 600; font-size: .92rem; }
.text { font-size: .88rem; color: var(--soft); margin-top: .15rem; }
.title, .text { display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 3; overflow: hidden; }
figure:focus .title, figure:focus .text, figure:hover .title, figure:hover .text { -webkit-line-clamp: none; }
.bars { margin-top: .55rem; display: grid; gap: .4rem; }
.bars li { display: grid; grid-template-columns: 1fr auto; gap: .1rem .6rem; font-size: .85rem; }
.bars .value { font-variant-numeric: tabular-nums; color: var(--soft); }
.bars li:first-child .name { font-weight: 600; }
.bars .right .name { color: var(--right); }
.bar { grid-column: 1 / -1; height: .3rem; border-radius: 1rem;
  background: linear-gradient(to right, var(--accent) var(--p), var(--track) var(--p)); }
.bars .right .bar { background: linear-gradient(to right, var(--right) var(--p), var(--track) var(--p)); }
footer { color: var(--soft); font-size: .85rem; margin-top: 1.5rem; max-width: 70ch; }
@media print { figure { break-inside: avoid; } }
"""

"""Line plots and bars as inline SVG, coloured by the page's own CSS variables. Knows no report, only numbers.

Every text is escaped as it goes in; a plot without JavaScript says the same as one with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import groupby

from markupsafe import Markup

from retrieval_prompts.report.content import Curve, Heat, Matrix

WIDTH, HEIGHT = 400, 250
LEFT, RIGHT, TOP, BOTTOM = 46, 18, 26, 44
COLUMNS = 1200  # bars of a distribution; more queries than that share them
NAME = 22  # characters of a name beside a matrix
MARKED = 25  # points that a line may have to show each of them


def line_chart(curves: Sequence[Curve], *, title: str, x: str, y: str, percent: bool = False) -> Markup:
    """Lines over common axes, with a title and a description for those who cannot see them.

    Args:
        x, y: what stands on the axes.
        percent: show y, a fraction, times 100.

    Points that are not finite are left out; without any, the result is empty.
    """
    curves = [Curve(curve.name, _finite(curve.points)) for curve in curves]
    curves = [curve for curve in curves if curve.points]
    if not curves:
        return Markup("")
    xs = ticks(*_span([point[0] for curve in curves for point in curve.points]), count=5)
    ys = ticks(*_span([point[1] for curve in curves for point in curve.points], margin=0.08))

    def place(px: float, py: float) -> tuple[float, float]:
        return (
            round(LEFT + (WIDTH - LEFT - RIGHT) * (px - xs[0]) / (xs[-1] - xs[0]), 1),
            round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (py - ys[0]) / (ys[-1] - ys[0]), 1),
        )

    parts = [_grid(xs, ys, place, percent), _axis_names(x, y)]
    for number, curve in enumerate(curves):
        points = [place(*point) for point in curve.points]
        parts.append(
            Markup('<polyline class="line c{}" points="{}"/>').format(
                number % 6, " ".join(f"{a},{b}" for a, b in points)
            )
        )
        if len(points) <= MARKED:
            for (a, b), (px, py) in zip(points, curve.points, strict=True):
                said = f"{curve.name}: {_number(py, percent)} at {x} {_number(px)}"
                parts.append(
                    Markup('<circle class="dot c{}" cx="{}" cy="{}" r="3.2"><title>{}</title></circle>').format(
                        number % 6, a, b, said
                    )
                )
    legend = Markup("").join(
        Markup('<li><span class="key c{}"></span>{}</li>').format(number % 6, curve.name)
        for number, curve in enumerate(curves)
    )
    described = "; ".join(_described(curve, percent, x) for curve in curves)
    return Markup(
        '<figure class="plot"><figcaption>{title}</figcaption>'
        '<svg viewBox="0 0 {width} {height}" role="img" aria-label="{title}. {said}">{parts}</svg>{legend}</figure>'
    ).format(
        title=title,
        width=WIDTH,
        height=HEIGHT,
        said=described,
        parts=Markup("").join(parts),
        legend=Markup('<ul class="legend">{}</ul>').format(legend) if len(curves) > 1 else "",
    )


def heat(plot: Heat) -> Markup:
    """Fractions as shades, the largest the darkest, each with its number."""
    largest = max((value for row in plot.values for value in row), default=0.0) or 1.0
    left = 12 + 7 * max((len(name) for name in plot.rows), default=0)
    width, height = (WIDTH - left) / max(1, len(plot.columns)), 24
    parts = []
    for at, name in enumerate(plot.columns):
        parts.append(
            Markup('<text class="tick" x="{}" y="14" text-anchor="middle">{}</text>').format(
                round(left + width * (at + 0.5), 1), name
            )
        )
    for down, (name, values) in enumerate(zip(plot.rows, plot.values, strict=True)):
        y = 22 + height * down
        parts.append(
            Markup('<text class="tick" x="{}" y="{}" text-anchor="end">{}</text>').format(left - 8, y + 16, name)
        )
        for at, value in enumerate(values):
            said = f"{name}, {plot.columns[at]}: {100 * value:.1f} %"
            parts.append(
                Markup(
                    '<rect class="shade" x="{}" y="{}" width="{}" height="{}" fill-opacity="{}">'
                    "<title>{}</title></rect>"
                ).format(
                    round(left + width * at, 1),
                    y,
                    round(width - 1, 1),
                    height - 1,
                    round(0.04 + 0.9 * value / largest, 3),
                    said,
                )
            )
    described = f"from {100 * min(map(min, plot.values)):.1f} % to {100 * largest:.1f} %" if plot.values else ""
    return Markup(
        '<figure class="plot"><figcaption>{}</figcaption>'
        '<svg viewBox="0 0 {} {}" role="img" aria-label="{}: {}">{}</svg></figure>'
    ).format(
        f"{plot.title} ({described})",
        WIDTH,
        24 + height * len(plot.rows),
        plot.title,
        described,
        Markup("").join(parts),
    )


def matrix(plot: Matrix) -> Markup:
    """Rows and columns of one list of names; each cell as dark as its share of the row. The diagonal has its colour."""
    names = [name if len(name) <= NAME else f"{name[: NAME - 1].rstrip()}…" for name in plot.names]
    side = min(56, max(26, 340 // max(1, len(names))))
    longest = max(map(len, names), default=0)
    left, top, over = 14 + round(6.9 * longest), 14 + round(5.4 * longest), round(4.2 * longest)
    parts = []
    for at, name in enumerate(names):
        middle = side * at + side // 2
        parts.append(
            Markup(
                '<text class="tick" x="{}" y="{}" text-anchor="end">{}</text>'
                '<text class="tick" transform="translate({} {}) rotate(-50)">{}</text>'
            ).format(left - 8, top + middle + 4, name, left + middle + 4, top - 6, name)
        )
    for down, row in enumerate(plot.counts):
        for across, count in enumerate(row):
            share = count / max(1, plot.totals[down])
            x, y = left + side * across, top + side * down
            kind = "none" if not count else "shade" if down == across else "miss"
            parts.append(
                Markup(
                    '<rect class="{}" x="{}" y="{}" width="{}" height="{}" fill-opacity="{}"><title>{}</title></rect>'
                ).format(
                    kind,
                    x,
                    y,
                    side - 2,
                    side - 2,
                    round(0.12 + 0.85 * share, 3),
                    f"{plot.names[down]}, answered {plot.names[across]}: {count:,}",
                )
            )
            if count:
                parts.append(
                    Markup(
                        '<text class="count{}" x="{}" y="{}" text-anchor="middle" aria-hidden="true">{}</text>'
                    ).format(
                        " over" if share > 0.65 else "",
                        x + side // 2 - 1,
                        y + side // 2 + 3,
                        count if count < 1000 else "…",
                    )
                )
    return Markup(
        '<figure class="plot matrix" tabindex="0"><figcaption>{}</figcaption>'
        '<svg viewBox="0 0 {} {}" width="{}" height="{}" role="img" aria-label="{}. {}">{}</svg></figure>'
    ).format(
        plot.title,
        *2 * (left + side * len(names) + over, top + side * len(names)),
        plot.title,
        plot.said,
        Markup("").join(parts),
    )


def distribution_paths(changes: Sequence[float]) -> tuple[str, str]:
    """The outlines of sorted bars, (those above 0, those below), in a box of 1000 x 200 whose middle is 0.

    `changes` run from -1 to 1, largest first. script.js draws the same when another pair is chosen.
    """
    count = len(changes)
    if count > COLUMNS:
        changes = [changes[column * count // COLUMNS] for column in range(COLUMNS)]
        count = COLUMNS
    above, below, position = "", "", 0
    for change, same in groupby(changes):
        length = len(list(same))
        if change:
            left, right = (round(1000 * edge / count, 2) for edge in (position, position + length))
            bar = f"M{left:g} 100V{round(100 - 100 * change, 1):g}H{right:g}V100Z"
            above, below = (above + bar, below) if change > 0 else (above, below + bar)
        position += length
    return above, below


def interval(low: float, middle: float, high: float, reach: float) -> Markup:
    """A confidence interval as a dot with whiskers on a line from -reach to reach."""

    def place(value: float) -> float:
        return round(80 + 74 * max(-1.0, min(1.0, value / reach if reach else 0.0)), 1)

    return Markup(
        '<svg class="interval {}" viewBox="0 0 160 22" aria-hidden="true"><path class="zero" d="M80 1V21"/>'
        '<path class="whisker" d="M{a} 6V16M{a} 11H{b}M{b} 6V16"/><circle cx="{m}" cy="11" r="4"/></svg>'
    ).format("unsure" if low <= 0 <= high else "sure", a=place(low), b=place(high), m=place(middle))


def change_bar(change: float) -> Markup:
    """A change from -1 to 1 as a bar to the right or the left of the middle."""
    size = round(50 * min(1.0, abs(change)), 1)
    return Markup(
        '<svg class="change" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        '<path class="zero" d="M50 0V10"/><rect class="{}" x="{}" y="1.5" width="{}" height="7"/></svg>'
    ).format("up" if change > 0 else "down", 50 if change > 0 else round(50 - size, 1), size)


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers at even steps of 1, 2 or 5 times a power of ten, from one at most `low` to one at least `high`."""
    raw = (high - low) / count
    power = 10 ** math.floor(math.log10(raw))
    step = next(size * power for size in (1, 2, 2.5, 5, 10) if size * power >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 10) for number in range(first, last + 1)]


def _span(values: Sequence[float], margin: float = 0.0) -> tuple[float, float]:
    low, high = min(values), max(values)
    if low == high:
        half = abs(low) / 20 or 0.5
        return low - half, high + half
    extra = margin * (high - low)
    # Room around a line, but not below zero where nothing is
    return (max(0.0, low - extra) if low >= 0 else low - extra), high + extra


def _finite(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in points if math.isfinite(x) and math.isfinite(y)]


def _grid(
    xs: Sequence[float], ys: Sequence[float], place: Callable[[float, float], tuple[float, float]], percent: bool
) -> Markup:
    lines = "".join(f"M{LEFT} {place(xs[0], y)[1]}H{WIDTH - RIGHT}" for y in ys)
    labels = [
        Markup('<text class="tick" x="{}" y="{}" text-anchor="end">{}</text>').format(
            LEFT - 8, place(xs[0], y)[1] + 4, _number(y, percent)
        )
        for y in ys
    ]
    labels += [
        Markup('<text class="tick" x="{}" y="{}" text-anchor="middle">{}</text>').format(
            place(x, ys[0])[0], HEIGHT - BOTTOM + 17, _number(x)
        )
        for x in xs
    ]
    return Markup('<path class="grid" d="{}"/>').format(lines) + Markup("").join(labels)


def _axis_names(x: str, y: str) -> Markup:
    return Markup(
        '<text class="axis" x="{}" y="{}" text-anchor="end">{}</text><text class="axis" x="{}" y="{}">{}</text>'
    ).format(WIDTH - RIGHT, HEIGHT - 8, x, 4, 12, y)


def _number(value: float, percent: bool = False) -> str:
    value = 100 * value if percent else value
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return text.replace("-", "−")


def _described(curve: Curve, percent: bool, x: str) -> str:
    first, last = curve.points[0], curve.points[-1]
    best = max(curve.points, key=lambda point: point[1])
    return (
        f"{curve.name}: from {_number(first[1], percent)} at {x} {_number(first[0])} to "
        f"{_number(last[1], percent)} at {_number(last[0])}, highest {_number(best[1], percent)} at {_number(best[0])}"
    )

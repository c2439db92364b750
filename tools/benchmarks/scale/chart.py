"""Draws docs/scale.svg: seconds of a query against the size of the fleet."""

from __future__ import annotations

import math
from collections.abc import Mapping

# To be seen on white and on black.
COLOURS = ("#d1495b", "#e07b39", "#2e86ab", "#3a9d6e", "#8d6cab", "#a08c2c")

WIDTH = 640
HEIGHT = 320
LEFT = 50
RIGHT = 170
TOP = 30
BOTTOM = 40
LABEL_HEIGHT = 15

# Both axes are logarithmic. The powers of ten at their ends:
CERTIFICATES = (3, 5)
SECONDS = (-1, 3)

HEAD = (
    f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
    'font-family="sans-serif" font-size="12">',
    "<title>Seconds of the query of overdue renewals, against certificates</title>",
    "<style>text{fill:#333}.g{stroke:#8886}"
    "@media(prefers-color-scheme:dark){text{fill:#ddd}}</style>",
    f'<text x="{LEFT}" y="14">seconds of a query; it runs every 15 minutes</text>',
)


def x_of(certificates: float) -> float:
    """Return the horizontal position of a size."""
    first, last = CERTIFICATES
    share = (math.log10(certificates) - first) / (last - first)
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def y_of(seconds: float) -> float:
    """Return the vertical position of a time."""
    first, last = SECONDS
    share = (math.log10(seconds) - first) / (last - first)
    return HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP)


def draw_chart(seconds: Mapping[str, Mapping[int, float]]) -> str:
    """Return the chart as SVG that follows light and dark.

    `seconds` has a line's name and, by number of certificates, the seconds of its query.
    """
    elements = [*HEAD, *draw_axes()]

    # The slowest line first: its label is the uppermost, and no label covers another.
    slowest_first = sorted(seconds.items(), key=lambda line: -line[1][max(line[1])])
    label_y = 0.0
    for (name, points), colour in zip(slowest_first, COLOURS):
        end = max(points)
        label_y = max(y_of(points[end]) + 4, label_y + LABEL_HEIGHT)
        elements.append(draw_line(name, points, colour))
        elements.append(
            f'<text x="{x_of(end) + 8:.0f}" y="{label_y:.0f}" style="fill:{colour}">{name}</text>'
        )
    return "\n".join([*elements, "</svg>", ""])


def draw_axes() -> list[str]:
    """Return a horizontal line and a label for each power of ten, and labels of the sizes."""
    elements = []
    first, last = SECONDS
    for power in range(first, last + 1):
        y = y_of(10**power)
        elements.append(f'<path class="g" d="M{LEFT} {y:.0f}H{WIDTH - RIGHT}"/>')
        elements.append(
            f'<text x="{LEFT - 6}" y="{y + 4:.0f}" text-anchor="end">{10**power:g}</text>'
        )
    for power, label in ((3, "1,000"), (4, "10,000"), (5, "100,000 certificates")):
        elements.append(
            f'<text x="{x_of(10**power):.0f}" y="{HEIGHT - BOTTOM + 18}" '
            f'text-anchor="middle">{label}</text>'
        )
    return elements


def draw_line(name: str, points: Mapping[int, float], colour: str) -> str:
    """Return the line of a query; it is dashed for the alert by host."""
    positions = [
        f"{x_of(size):.0f},{y_of(seconds):.0f}" for size, seconds in sorted(points.items())
    ]
    dash = ' stroke-dasharray="6 4"' if "by host" in name else ""
    return (
        f'<polyline points="{" ".join(positions)}" fill="none" stroke="{colour}" '
        f'stroke-width="2"{dash}/>'
    )

"""A figure of the page: an SVG for narrow and one for wide screens, so that text keeps its size, and a table.

A figure is {"title", "note", "svg", "columns", "rows"}: `columns` and `rows` (of `cells`) have the same numbers as
text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from markupsafe import Markup

from prm_gym.report.cells import Cell
from prm_gym.report.svg import BOTTOM, RIGHT, TOP, WIDTH, drawing, spread, text

Figure = dict[str, Any]
WIDE = 524.0  # pixels on a wide screen, for two figures side by side
HEIGHT = 240.0
BASE = HEIGHT - BOTTOM


def figure(
    title: str,
    note: str,
    draw: Callable[[float], Iterable[Markup]],
    columns: Sequence[str],
    rows: list[list[Cell]],
    height: float = HEIGHT,
) -> Figure:
    """`draw(end)` returns the marks, with the data area ending at `end` pixels, which is `RIGHT` before the edge."""
    svg = Markup("").join(
        drawing(title, height, draw(width - RIGHT), width, f"plot {css}")
        for width, css in ((WIDTH, "narrow"), (WIDE, "wide"))
    )
    return {"title": title, "note": note, "svg": svg, "columns": list(columns), "rows": rows}


def wrapped(label: str, room: float) -> list[str]:
    """A label split at its commas into lines of about `room` pixels at most."""
    lines: list[str] = []
    for part in label.split(", "):
        if lines and 6.4 * len(f"{lines[-1]}, {part}") <= room:
            lines[-1] += f", {part}"
        else:
            lines.append(part)
    return lines


def end_labels(ends: Sequence[tuple[float, float, str, str]], room: float) -> list[Markup]:
    """Labels (x, y, words, css) at the right end of each curve, moved apart if they would overlap."""
    labels = [wrapped(words, room) for _, _, words, _ in ends]
    right = max((x for x, _, _, _ in ends), default=0)
    block = 15.0 * max((len(lines) for lines in labels), default=1)
    heights = spread([y for _, y, _, _ in ends], block)
    down = max(0.0, TOP + block / 2 - 12 - min(heights, default=0.0))  # none above the plot
    heights = [y + down for y in heights]
    return [
        text(right + 10, y + 4 + 14 * (i - (len(lines) - 1) / 2), of, f"label {css}")
        for lines, y, (_, _, _, css) in zip(labels, heights, ends, strict=True)
        for i, of in enumerate(lines)
    ]

"""One figure a finding, an SVG file that needs no style sheet: lines over x with 95% intervals, named at their ends."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from prm_gym.report.svg import (
    BOTTOM,
    LEFT,
    TOP,
    Scale,
    dot,
    drawing,
    element,
    line,
    nice_ticks,
    path,
    spread,
    text,
    whisker,
    x_axis,
    y_axis,
)

WIDTH, HEIGHT, NAMES = 640, 340, 190  # pixels; NAMES is the room at the right
_COLOURS = ("#6b7078", "#1f5fbf", "#b4530a", "#14795a", "#7d3fb5", "#b02562")
_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#1c1d1f}.tick,.axis-name{fill:#5d6066}"
    ".grid{stroke:#e3e3dd}.curve{stroke-width:1.8}.whisker{stroke-width:1.2;opacity:.6}"
)


def draw(entry: dict[str, Any]) -> str:
    """The figure of an entry of findings.json."""
    series: dict[str, list[dict[str, Any]]] = {}
    for row in entry["rows"]:
        series.setdefault(row["series"], []).append(row)
    bounds = [value for row in entry["rows"] for value in (row["ci95"] or [row["mean"]])]
    ticks = nice_ticks(min(bounds), max(bounds))
    xs = sorted({row["x"] for row in entry["rows"]})
    end = WIDTH - NAMES
    x = Scale(xs[0], xs[-1], LEFT + 14, end - 12, log=entry["axes"]["log"])
    y = Scale(ticks[0], ticks[-1], HEIGHT - BOTTOM, TOP + 8)
    marks: list[Markup] = [element("rect", width=WIDTH, height=HEIGHT, fill="#fdfdfb"), element("style", _STYLE)]
    marks += y_axis(y, ticks, entry["axes"]["y"], end)
    shown = xs if len(xs) <= 12 else xs[::2]
    marks += x_axis(x, [(value, f"{value:g}") for value in shown], HEIGHT - BOTTOM, entry["axes"]["x"], end)
    colours = "".join(
        f".s{i}{{stroke:{c}}}.mark.s{i},text.s{i}{{fill:{c}}}text.s{i}{{stroke:none}}" for i, c in enumerate(_COLOURS)
    )
    marks.append(element("style", colours))
    ends = []
    for number, (name, rows) in enumerate(series.items()):
        css, shift = f"s{number % len(_COLOURS)}", 3.0 * (number - (len(series) - 1) / 2)
        places = [(x(row["x"]) + shift, y(row["mean"])) for row in rows]
        marks.append(path(places, f"curve {css}"))
        for (px, py), row in zip(places, rows, strict=True):
            if row["ci95"]:
                marks.append(whisker(px, y(row["ci95"][0]), y(row["ci95"][1]), css))
            marks.append(dot(px, py, css, f"{name}, {row['x']:g}: {row['mean']:.3f}", 3.2))
        ends.append((name, css, *places[-1]))
    for (name, css, px, py), label in zip(ends, spread([py for *_, py in ends], 15), strict=True):
        if px < end - 30:
            marks.append(line(px + 5, py, end, label, "grid"))
        marks.append(text(end + 6, label + 4, name, css))
    figure = drawing(entry["claim"], HEIGHT, marks, width=WIDTH)
    return str(figure).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)

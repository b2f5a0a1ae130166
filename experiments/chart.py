"""A figure per finding, an SVG file without a style sheet: curves over x with 95% intervals, labelled at their ends.

If x is a name there are no curves: each name is a row, with a mark and an interval for each series.
"""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from prm_gym.report.svg import (
    BOTTOM,
    LEFT,
    RIGHT,
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

WIDTH, HEIGHT, NAMES, ROW = 640, 340, 190, 40  # pixels; NAMES is the width of the names' column, ROW a row's height
_COLOURS = ("#6b7078", "#1f5fbf", "#b4530a", "#14795a", "#7d3fb5", "#b02562")
_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#1c1d1f}.tick,.axis-name{fill:#5d6066}"
    ".grid{stroke:#e3e3dd}.curve{stroke-width:1.8}.whisker{stroke-width:1.2;opacity:.6}"
)


def draw(entry: dict[str, Any]) -> str:
    """The figure of an entry of findings.json: a panel with success, and one below with other measures, if any."""
    axes = entry["axes"]
    if any(isinstance(row["x"], str) for row in entry["rows"]):
        height, panels = _named(entry["rows"], axes["x"])
    else:
        kinds = (
            (axes["y"], [row for row in entry["rows"] if row["ci95"]]),
            (axes["numbers"], [row for row in entry["rows"] if not row["ci95"]]),
        )
        panels = [_panel(rows, axes["x"], name, axes["log"]) for name, rows in kinds if rows]
        height = HEIGHT * len(panels)
    colours = "".join(
        f".s{i}{{stroke:{c}}}.mark.s{i},text.s{i}{{fill:{c}}}text.s{i}{{stroke:none}}" for i, c in enumerate(_COLOURS)
    )
    marks = [element("rect", width=WIDTH, height=height, fill="#fdfdfb"), element("style", _STYLE, colours)]
    marks += [element("g", *of, transform=f"translate(0,{HEIGHT * number})") for number, of in enumerate(panels)]
    figure = drawing(entry["claim"], height, marks, width=WIDTH)
    return str(figure).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)


def _named(rows: list[dict[str, Any]], name: str) -> tuple[int, list[list[Markup]]]:
    """One panel and its height."""
    names = list(dict.fromkeys(row["x"] for row in rows))
    series = list(dict.fromkeys(row["series"] for row in rows))
    bottom = TOP + 20 + ROW * len(names)
    bounds = [bound for row in rows for bound in row["ci95"]]
    ticks = nice_ticks(min(bounds), max(bounds))
    x = Scale(ticks[0], ticks[-1], NAMES + 20, WIDTH - RIGHT)
    marks = [text(6, TOP - 6, name, "axis-name")]
    for number, label in enumerate(series):  # the key
        place = x.start + number * (x.end - x.start) / len(series)
        marks += [dot(place, TOP - 10, f"s{number}", label, 3.2), text(place + 8, TOP - 6, label, f"s{number}")]
    marks += [line(x(tick), TOP + 4, x(tick), bottom, "grid") for tick in ticks]
    marks += x_axis(x, [(tick, f"{tick:g}") for tick in ticks], bottom, None, x.end)
    middles = {of: TOP + 12 + ROW * (number + 0.5) for number, of in enumerate(names)}
    marks += [text(6, y + 4, of) for of, y in middles.items()]
    for row in rows:
        number = series.index(row["series"])
        y, (low, high) = middles[row["x"]] + 8.0 * (number - (len(series) - 1) / 2), row["ci95"]
        marks.append(line(x(low), y, x(high), y, f"whisker s{number}"))
        marks.append(dot(x(row["mean"]), y, f"s{number}", f"{row['series']}, {row['x']}: {row['mean']:.3f}", 3.2))
    return bottom + BOTTOM, [marks]


def _panel(rows: list[dict[str, Any]], x_name: str, y_name: str, log: bool) -> list[Markup]:
    series: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        series.setdefault(row["series"], []).append(row)
    bounds = [value for row in rows for value in (row["ci95"] or [row["mean"]])]
    ticks = nice_ticks(min(bounds), max(bounds))
    xs = sorted({row["x"] for row in rows})
    end = WIDTH - NAMES
    x = Scale(xs[0], xs[-1], LEFT + 14, end - 12, log=log)
    y = Scale(ticks[0], ticks[-1], HEIGHT - BOTTOM, TOP + 8)
    shown = xs if len(xs) <= 12 else xs[::2]
    marks = y_axis(y, ticks, y_name, end)
    marks += x_axis(x, [(value, f"{value:g}") for value in shown], HEIGHT - BOTTOM, x_name, end)
    ends = []
    for number, (name, points) in enumerate(series.items()):
        css, shift = f"s{number % len(_COLOURS)}", 3.0 * (number - (len(series) - 1) / 2)
        places = [(x(row["x"]) + shift, y(row["mean"])) for row in points]
        marks.append(path(places, f"curve {css}"))
        for (px, py), row in zip(places, points, strict=True):
            if row["ci95"]:
                marks.append(whisker(px, y(row["ci95"][0]), y(row["ci95"][1]), css))
            marks.append(dot(px, py, css, f"{name}, {row['x']:g}: {row['mean']:.3f}", 3.2))
        ends.append((name, css, *places[-1]))
    for (name, css, px, py), label in zip(ends, spread([py for *_, py in ends], 15), strict=True):
        if px < end - 30:
            marks.append(line(px + 5, py, end, label, "grid"))
        marks.append(text(end + 6, label + 4, name, css))
    return marks

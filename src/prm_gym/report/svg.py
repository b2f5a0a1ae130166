"""Build SVG: scales, axes, marks and labels, with all text escaped. Colours and line widths are in page.css.

Coordinates are CSS pixels. `WIDTH` is that of a phone, so that text keeps its size there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup, escape

WIDTH = 340
LEFT, RIGHT, TOP, BOTTOM = 36, 20, 26, 36  # margins around the data


@dataclass(frozen=True)
class Scale:
    """A linear map from [low, high] to pixels [start, end]; with `log`, of the base-2 logarithm."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, value = (
            (math.log2(v) for v in (self.low, self.high, value)) if self.log else (self.low, self.high, value)
        )
        return self.start + (value - low) / (high - low) * (self.end - self.start) if high > low else self.start


def element(tag: str, *children: str | Markup, **attributes: object) -> Markup:
    """`element("g", child, stroke_width=2, class_="x")`; attributes and plain strings are escaped."""
    named = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items() if value is not None}
    parts = [Markup(' {}="{}"').format(name, _short(value)) for name, value in named.items()]
    inner = Markup("").join(escape(child) for child in children)
    return Markup("<{}{}>{}</{}>").format(Markup(tag), Markup("").join(parts), inner, Markup(tag))


def drawing(title: str, height: float, marks: Iterable[Markup], width: float = WIDTH, css: str = "plot") -> Markup:
    """A drawing that screen readers announce as an image with the label `title`."""
    return element(
        "svg", *marks, viewBox=f"0 0 {width:g} {height:g}", role="img", class_=css, aria_label=title,
        width=f"{width:g}", height=f"{height:g}",
    )  # fmt: skip


def text(x: float, y: float, words: str, css: str = "", anchor: str | None = None) -> Markup:
    return element("text", words, x=x, y=y, class_=css or None, text_anchor=anchor)


def line(x1: float, y1: float, x2: float, y2: float, css: str) -> Markup:
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=css)


def path(points: Sequence[tuple[float, float]], css: str) -> Markup:
    steps = " L".join(f"{_short(x)} {_short(y)}" for x, y in points)
    return element("path", d=f"M{steps}", class_=css, fill="none")


def dot(x: float, y: float, css: str, hint: str, radius: float = 4) -> Markup:
    """A data mark with the tooltip `hint`."""
    return element("circle", element("title", hint), cx=x, cy=y, r=radius, class_=f"mark {css}")


def line_hint(x: float, y: float, hint: str) -> Markup:
    """An invisible mark on a curve with the tooltip `hint`."""
    return element("circle", element("title", hint), cx=x, cy=y, r=7, class_="place")


def whisker(x: float, low: float, high: float, css: str) -> Markup:
    """An interval as a line without caps."""
    return line(x, low, x, high, f"whisker {css}")


def y_axis(
    y: Scale, ticks: Sequence[float], name: str, right: float, form: str = "{:g}", times: float = 1
) -> list[Markup]:
    """Grid lines with their numbers (`times` the value) at the left, and the name of the axis above."""
    marks = [text(0, y.end - 12, name, "axis-name")]
    for tick in ticks:
        marks.append(line(LEFT, y(tick), right, y(tick), "grid"))
        marks.append(
            text(LEFT - 7, y(tick) + 4, form.format(tick * times).replace("-", "\N{MINUS SIGN}"), "tick", "end")
        )
    return marks


def x_axis(
    x: Scale, labels: Iterable[tuple[float, str]], bottom: float, name: str | None, right: float
) -> list[Markup]:
    marks = [text(x(value), bottom + 17, label, "tick", "middle") for value, label in labels]
    return [*marks, text(right, bottom + 32, name, "axis-name", "end")] if name else marks


def nice_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """At most `most` + 1 round numbers (1, 2 or 5 times a power of ten apart) that enclose [low, high]."""
    span = (high - low) or abs(high) or 1.0
    power = 10 ** math.floor(math.log10(span / most))
    step = next(power * m for m in (1, 2, 5, 10) if span / (power * m) <= most)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, max(last, first + 1) + 1)]


def spread(positions: Sequence[float], gap: float) -> list[float]:
    """Positions moved apart to a distance of at least `gap`, so that labels do not overlap."""
    order = sorted(range(len(positions)), key=positions.__getitem__)
    moved = list(positions)
    for before, after in pairwise(order):
        moved[after] = max(moved[after], moved[before] + gap)
    shift = sum(moved[i] - positions[i] for i in order) / len(order) if order else 0.0
    return [value - shift for value in moved]


def _short(value: object) -> object:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value

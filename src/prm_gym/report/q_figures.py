"""Figures of the process reward model: the targets it was trained on, and whether Q means what it says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prm_gym.report import names
from prm_gym.report.figures import BASE, END, HEIGHT, Figure
from prm_gym.report.svg import (
    LEFT,
    TOP,
    Scale,
    diamond,
    dot,
    drawing,
    element,
    line,
    nice_ticks,
    path,
    text,
    whisker,
    x_axis,
    y_axis,
)

_UNIT_TICKS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
_LARGEST = 9.0  # radius in pixels of the bin with the most visits


def target_histograms(run: dict[str, Any]) -> Iterator[Figure]:
    """Share of the rows of each iteration's dataset in bins of the target."""
    for iteration in run["iterations"]:
        if (targets := iteration["targets"]) is None:
            continue
        n, counts = iteration["n"] - 1, targets["counts"]
        shares, width = [count / sum(counts) for count in counts], 1 / len(counts)
        ticks = nice_ticks(0, max(shares), 4)
        x, y = Scale(0, 1, LEFT, END), Scale(0, ticks[-1], BASE, TOP)
        css = names.accent(f"pi_{n}")
        marks = y_axis(y, ticks, "share of (s, a), %", END, "{:g}", 100)
        for i, share in enumerate(shares):
            low, high = i * width, (i + 1) * width
            said = f"{low:.2f} to {high:.2f}: {counts[i]:,} ({names.percent(share)}%)"
            marks.append(
                element(
                    "rect", element("title", said), x=x(low) + 1, y=y(share), width=x(high) - x(low) - 2,
                    height=BASE - y(share), class_=f"mark {css}",
                )
            )  # fmt: skip
        mean = x(targets["mean"])
        marks += x_axis(x, [(t, f"{t:g}") for t in _UNIT_TICKS], BASE, "target", END)
        marks += [line(mean, TOP, mean, BASE, "rule"), text(mean + 5, TOP + 8, f"mean {targets['mean']:.2f}", "label")]
        q = names.pretty(f"Q_{n}")
        yield {
            "title": f"Targets of {q}",
            "note": f"{targets['train']:,} state-action pairs to train on, {targets['test']:,} held out by game.",
            "svg": drawing(f"Histogram of the targets of {q}", HEIGHT, marks),
            "columns": ["target", "pairs", "%"],
            "rows": [
                [f"{i * width:.2f}{names.DASH}{(i + 1) * width:.2f}", f"{counts[i]:,}", names.percent(share)]
                for i, share in enumerate(shares)
            ],
        }


def calibrations(run: dict[str, Any]) -> Iterator[Figure]:
    """Mean return against mean Q in ten bins of Q, on held-out games; on the diagonal Q is right."""
    for iteration in run["iterations"]:
        if (quality := iteration["quality"]) is None or not quality["bins"]:
            continue
        n, bins = iteration["n"] - 1, quality["bins"]
        x, y = Scale(0, 1, LEFT, END), Scale(0, 1, BASE, TOP)
        css, most = names.accent(f"pi_{n}"), max(visits for _, _, visits in bins)
        q = names.pretty(f"Q_{n}")
        marks = [
            *y_axis(y, _UNIT_TICKS, "mean return", END),
            *x_axis(x, [(t, f"{t:g}") for t in _UNIT_TICKS], BASE, f"mean {q} of the bin", END),
            line(x(0), y(0), x(1), y(1), "rule"),
            text(x(0.8) - 6, y(0.8) - 6, f"{q} is right", "label faint", "end"),
            path([(x(value), y(mean)) for value, mean, _ in bins], f"curve thin {css}"),
        ]
        for value, mean, visits in bins:
            said = f"{q} {value:.2f}, return {mean:.2f}, {visits:,} visits"
            marks.append(
                dot(x(value), y(mean), f"{css} see-through", said, max(2.5, _LARGEST * (visits / most) ** 0.5))
            )
        yield {
            "title": f"Calibration of {q}",
            "note": _in_words(quality, q),
            "svg": drawing(f"Calibration of {q}", HEIGHT, marks),
            "columns": [q, "mean return", "visits"],
            "rows": [[f"{value:.2f}", f"{mean:.2f}", f"{visits:,}"] for value, mean, visits in bins],
        }


def rankings(run: dict[str, Any]) -> Iterator[Figure]:
    """How often each Q orders two actions at one state as rollouts of both do: all that Stage 3 and best-of-N use."""
    found = [(i["n"] - 1, q) for i in run["iterations"] if (q := i["quality"]) and q["ranking_accuracy"] is not None]
    if not found:
        return
    x, y = Scale(found[0][0], found[-1][0], LEFT + 40, END - 20), Scale(0.4, 1, BASE, TOP)
    marks = [
        *y_axis(y, (0.4, 0.6, 0.8, 1.0), "pairs in order, %", END, "{:g}", 100),
        *x_axis(x, [(n, names.pretty(f"Q_{n}")) for n, _ in found], BASE, None, END),
        line(LEFT, y(0.5), END, y(0.5), "rule"),
        text(END, y(0.5) - 5, "chance", "label faint", "end"),
    ]
    rows = []
    for n, quality in found:
        share, (low, high), ceiling = (quality[key] for key in ("ranking_accuracy", "ranking_ci95", "ranking_ceiling"))
        css, q = names.accent(f"pi_{n}"), names.pretty(f"Q_{n}")
        said = f"{q}: {names.percent(share)}% of {quality['pairs']:,} pairs"
        marks += [whisker(x(n), y(max(low, 0.4)), y(high), css), dot(x(n), y(max(share, 0.4)), css, said)]
        if ceiling is not None:
            marks.append(diamond(x(n) + 12, y(ceiling), f"{css} hollow", f"rollouts agree: {names.percent(ceiling)}%"))
        said = names.DASH if ceiling is None else names.percent(ceiling)
        rows.append([q, f"{quality['pairs']:,}", names.percent(share), names.interval(low, high), said])
    yield {
        "title": "Actions at one state in order",
        "note": "Pairs of actions on held-out games that Q orders as fresh rollouts of both do; hollow, one half of "
        "the rollouts against the other half. Bars are 95% intervals.",
        "svg": drawing("Ranking accuracy of Q within states", HEIGHT, marks),
        "columns": ["", "pairs", "in order %", "95%", "rollouts agree %"],
        "rows": rows,
    }


def _in_words(quality: dict[str, Any], q: str) -> str:
    said = f"{quality['visits']:,} visits of held-out games, the area of a dot its share."
    if quality["auc"] is not None:
        said += f" AUC of {q} for winning {quality['auc']:.2f}; calibration error {quality['calibration_error']:.2f}."
    return said

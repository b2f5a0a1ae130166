"""Figures of the process reward model: training targets, calibration, ranking of actions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from markupsafe import Markup

from prm_gym.report import display_names
from prm_gym.report.cells import Interval, Percent
from prm_gym.report.figure import BASE, Figure, figure
from prm_gym.report.svg import (
    BOTTOM,
    LEFT,
    TOP,
    Scale,
    dot,
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
_ROW, _LABELS = 20.0, 132.0  # pixels: height of a row, and right edge of its label
_LARGEST = 9.0  # radius in pixels of the bin with the most visits
_NO_TARGETS = {
    "pairs": "was trained on pairs of actions at one state, which say which of the two is better and nothing of how "
    "good they are",
    "transitions": "was trained on transitions of the expert and of earlier policies (InversePRM), not on targets",
}


def remarks(run: dict[str, Any]) -> Iterator[str]:
    """The reason why a Q has no histogram of targets and no calibration."""
    for kind, why in _NO_TARGETS.items():
        qs = [display_names.pretty(f"Q_{i['n'] - 1}") for i in run["iterations"] if i["labels"] == kind]
        if qs:
            yield (
                f"{_listed(qs)} {why}. So there are no targets to show, and the level of Q means nothing: calibration "
                "is not defined, ranking is."
            )


def target_histograms(run: dict[str, Any]) -> Iterator[Figure]:
    """Share of the rows of each iteration's dataset in bins of the target."""
    for iteration in run["iterations"]:
        if (targets := iteration["targets"]) is None:
            continue
        n, counts = iteration["n"] - 1, targets["counts"]
        q, shares, width = display_names.pretty(f"Q_{n}"), [count / sum(counts) for count in counts], 1 / len(counts)

        def draw(
            end: float, n: int = n, targets: Any = targets, counts: Any = counts, shares: Any = shares
        ) -> list[Markup]:
            ticks = nice_ticks(0, max(shares), 4)
            x, y = Scale(0, 1, LEFT, end), Scale(0, ticks[-1], BASE, TOP)
            marks = y_axis(y, ticks, "share of (s, a), %", end, "{:g}", 100)
            for i, share in enumerate(shares):
                low, high = i / len(shares), (i + 1) / len(shares)
                said = f"{low:.2f} to {high:.2f}: {counts[i]:,} ({display_names.percent(share)}%)"
                marks.append(
                    element(
                        "rect", element("title", said), x=x(low) + 1, y=y(share), width=x(high) - x(low) - 2,
                        height=BASE - y(share), class_=f"mark {display_names.accent(f'pi_{n}')}",
                    )
                )  # fmt: skip
            mean = x(targets["mean"])
            marks += x_axis(x, [(t, f"{t:g}") for t in _UNIT_TICKS], BASE, "target", end)
            marks += [
                line(mean, TOP, mean, BASE, "rule"),
                text(mean + 5, TOP + 8, f"mean {targets['mean']:.2f}", "label"),
            ]
            return marks

        yield figure(
            f"Targets of {q}",
            f"{targets['train']:,} state-action pairs to train on, {targets['test']:,} held out by game.",
            draw,
            ["target", "pairs", "%"],
            [
                [f"{i * width:.2f}{display_names.DASH}{(i + 1) * width:.2f}", counts[i], Percent(share)]
                for i, share in enumerate(shares)
            ],
        )


def calibrations(run: dict[str, Any]) -> Iterator[Figure]:
    """Mean return against mean Q in ten bins of Q, on held-out games; on the diagonal Q is calibrated."""
    for iteration in run["iterations"]:
        if (quality := iteration["quality"]) is None or not quality["bins"]:
            continue
        n, bins = iteration["n"] - 1, quality["bins"]
        q, most = display_names.pretty(f"Q_{n}"), max(visits for _, _, visits in bins)

        def draw(end: float, n: int = n, q: str = q, bins: Any = bins, most: int = most) -> list[Markup]:
            x, y, css = Scale(0, 1, LEFT, end), Scale(0, 1, BASE, TOP), display_names.accent(f"pi_{n}")
            marks = [
                *y_axis(y, _UNIT_TICKS, "mean return", end),
                *x_axis(x, [(t, f"{t:g}") for t in _UNIT_TICKS], BASE, f"mean {q} of the bin", end),
                line(x(0), y(0), x(1), y(1), "rule"),
                text(x(0.8) - 6, y(0.8) - 6, f"{q} is right", "label faint", "end"),
                path([(x(value), y(mean)) for value, mean, _ in bins], f"curve thin {css}"),
            ]
            for value, mean, visits in bins:
                said = f"{q} {value:.2f}, return {mean:.2f}, {visits:,} visits"
                radius = max(2.5, _LARGEST * (visits / most) ** 0.5)
                marks.append(dot(x(value), y(mean), f"{css} see-through", said, radius))
            return marks

        rows = [[f"{value:.2f}", f"{mean:.2f}", visits] for value, mean, visits in bins]
        yield figure(f"Calibration of {q}", _in_words(quality, q), draw, [q, "mean return", "visits"], rows)


def rankings(run: dict[str, Any]) -> Iterator[Figure]:
    """How often each Q orders two actions at one state as rollouts of both do, which is all that Stage 3 and best-of-N
    use.

    A row per Q, `[name, pairs, accuracy, interval, corrected, interval, ceiling]`; the corrected share is None in files
    of older versions.
    """
    found = [(i["n"] - 1, q) for i in run["iterations"] if (q := i["quality"]) and q["ranking_accuracy"] is not None]
    if not found:
        return

    def draw(end: float) -> list[Markup]:
        ends = [end for _, q in found for end in (q["ranking_ci95"], q["ranking_corrected_ci95"]) if end]
        lowest = min(0.4, *(low for low, _ in ends))
        ticks = [t for t in nice_ticks(lowest, 1, 4) if -1e-9 <= t <= 1 + 1e-9]
        y = Scale(ticks[0], ticks[-1], BASE, TOP)
        column = (end - LEFT) / len(found)
        marks = [
            *y_axis(y, ticks, "pairs in order, %", end, "{:g}", 100),
            line(LEFT, y(0.5), end, y(0.5), "rule"),
            text(end, y(0.5) - 5, "chance", "label faint", "end"),
        ]
        for number, (n, quality) in enumerate(found):
            middle = LEFT + column * (number + 0.5)
            marks += _ranking(middle, min(column, 150.0) / 2 - 8, y, n, quality)
            marks.append(text(middle, BASE + 17, display_names.pretty(f"Q_{n}"), "tick", "middle"))
        return marks

    yield figure(
        "Actions at one state in order",
        "Pairs of actions on held-out games that Q orders as fresh rollouts of both do (hollow), and as their true "
        "returns do, the noise of finitely many rollouts taken out (full), with 95% intervals over games. The ceiling "
        "is how often one half of the rollouts agrees with the other half.",
        draw,
        ["", "pairs", "by rollouts %", "95%", "corrected %", "95%", "ceiling %"],
        [_ranking_row(n, quality) for n, quality in found],
    )


def _ranking(x: float, half: float, y: Scale, n: int, quality: dict[str, Any]) -> list[Markup]:
    """The marks of one Q, in `half` pixels to each side of `x`."""
    css, q = display_names.accent(f"pi_{n}"), display_names.pretty(f"Q_{n}")
    raw, corrected, pairs = quality["ranking_accuracy"], quality["ranking_corrected"], f"{quality['pairs']:,} pairs"
    apart = 0.0 if corrected is None else 10.0  # pixels from the middle to each of the two
    said = f"{q}: {display_names.percent(raw)}% of {pairs}"
    low, high = quality["ranking_ci95"]
    place, anchor = (x + 9, None) if corrected is None else (x - apart - 9, "end")
    marks = [
        whisker(x - apart, y(low), y(high), css),
        dot(x - apart, y(raw), f"{css} hollow", said),
        text(place, y(raw) + 4, display_names.percent(raw), f"label {css}", anchor),
    ]
    if corrected is not None:
        low, high = quality["ranking_corrected_ci95"]
        marks += [
            whisker(x + apart, y(low), y(high), css),
            dot(x + apart, y(corrected), css, f"{q}, corrected: {display_names.percent(corrected)}% of {pairs}"),
            text(x + apart + 9, y(corrected) + 4, display_names.percent(corrected), f"label {css}"),
        ]
    if (ceiling := quality["ranking_ceiling"]) is not None:
        marks += [
            line(x - half, y(ceiling), x + half, y(ceiling), "ceiling"),
            text(x, y(ceiling) - 6, f"ceiling {display_names.percent(ceiling)}", "label faint", "middle"),
        ]
    return marks


def _ranking_row(n: int, quality: dict[str, Any]) -> list[Any]:
    corrected, ceiling = quality["ranking_corrected"], quality["ranking_ceiling"]
    return [
        display_names.pretty(f"Q_{n}"),
        quality["pairs"],
        Percent(quality["ranking_accuracy"]),
        Interval(*quality["ranking_ci95"]),
        *([None, None] if corrected is None else [Percent(corrected), Interval(*quality["ranking_corrected_ci95"])]),
        None if ceiling is None else Percent(ceiling),
    ]


def rankings_by(run: dict[str, Any]) -> Iterator[Figure]:
    """The ranking of each Q by admissibility and by kind of action, with rows
    `[pairs of, pairs, games, accuracy, interval, corrected, interval]`.
    """
    for iteration in run["iterations"]:
        if not (quality := iteration["quality"]) or not quality["ranking_by"]:
            continue
        n, by = iteration["n"] - 1, quality["ranking_by"]
        q, height = display_names.pretty(f"Q_{n}"), TOP + _ROW * len(by) + BOTTOM

        def draw(end: float, n: int = n, by: Any = by, height: float = height) -> list[Markup]:
            x, css, base = Scale(0, 1, _LABELS, end), display_names.accent(f"pi_{n}"), height - BOTTOM
            marks = x_axis(x, [(t, f"{100 * t:g}") for t in _UNIT_TICKS], base, "pairs in order, %", end)
            marks += [line(x(t), TOP, x(t), base, "grid") for t in _UNIT_TICKS]
            marks.append(line(x(0.5), TOP, x(0.5), base, "rule"))
            for number, (label, of) in enumerate(by.items()):
                y, pairs = TOP + _ROW * (number + 0.5), f"of {of['pairs']:,} pairs"
                low, high = of["corrected_ci95"]
                marks += [
                    text(_LABELS - 10, y + 4, label, "tick", "end"),
                    line(x(low), y, x(high), y, f"whisker {css}"),
                    dot(
                        x(of["accuracy"]),
                        y,
                        f"{css} hollow",
                        f"{label}: {display_names.percent(of['accuracy'])}% {pairs}",
                    ),
                    dot(
                        x(of["corrected"]),
                        y,
                        css,
                        f"{label}, corrected: {display_names.percent(of['corrected'])}% {pairs}",
                    ),
                ]
            return marks

        yield figure(
            f"Actions in order by {q}, by kind",
            "By rollouts (hollow) and corrected for their noise (full, with its 95% interval over games). A pair "
            "counts for the kinds of both its actions.",
            draw,
            ["pairs of", "pairs", "games", "by rollouts %", "95%", "corrected %", "95%"],
            [
                [
                    label,
                    of["pairs"],
                    of["games"],
                    Percent(of["accuracy"]),
                    Interval(*of["ci95"]),
                    Percent(of["corrected"]),
                    Interval(*of["corrected_ci95"]),
                ]
                for label, of in by.items()
            ],
            height,
        )


def _in_words(quality: dict[str, Any], q: str) -> str:
    said = f"{quality['visits']:,} visits of held-out games, the area of a dot its share."
    if quality["auc"] is not None:
        said += f" AUC of {q} for winning {quality['auc']:.2f}; calibration error {quality['calibration_error']:.2f}."
    return said


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]} each"

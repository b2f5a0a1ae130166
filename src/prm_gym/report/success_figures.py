"""Figures of success: against the iteration, and against N of best-of-N.

In all figures a dot is a measured success rate, the bar its 95% interval, the colour the policy, and the dashes of a
line the rule by which actions are chosen. A figure without data is left out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from markupsafe import Markup

from prm_gym.policies.best_of_n import BestOf
from prm_gym.report import display_names
from prm_gym.report.cells import Interval, Percent
from prm_gym.report.figure import BASE, WIDE, Figure, end_labels, figure
from prm_gym.report.svg import LEFT, RIGHT, TOP, Scale, dot, line, nice_ticks, path, whisker, x_axis, y_axis

_INTERVAL = ("success %", "95%")
_DASHES = 4  # classes dash0 (a full line) to dash3 in page.css


def learning_curves(run: dict[str, Any]) -> Iterator[Figure]:
    """Success of pi_n against n, one figure per split with two or more policies, and the largest N of each rule of
    best-of-N.
    """
    for split, entries in by_split(run["results"]):
        alone = _of_iterations(entries, "policy")
        if len(alone) < 2:
            continue
        curves = [("policy alone", alone)]
        largest = {display_names.rule(of): of for of in sorted(_choices(entries), key=lambda of: of.n)}
        for rule, choice in sorted(largest.items()):
            if best := _of_iterations(entries, choice.mode):
                curves.append((f"best of {choice.n}{rule}", best))

        def draw(end: float, alone: Any = alone, curves: Any = curves) -> list[Markup]:
            room = _room(end)
            x = Scale(alone[0][0], alone[-1][0], LEFT + 22, end - room - 22)
            y, ticks = success_axis(e for _, curve in curves for _, e in curve)
            marks = _success_frame(y, ticks, end - room)
            marks += x_axis(x, [(n, display_names.pretty(e["policy"])) for n, e in alone], BASE, None, end)
            ends = []
            for at, (name, curve) in enumerate(curves):
                of = [(x(n) + 9 * at, e) for n, e in curve]
                marks.append(path([(px, y(e["success"])) for px, e in of], f"curve {_dash(at)}"))
                marks += [mark for px, e in of for mark in success_mark(px, y, e)]
                ends.append(
                    (of[-1][0], y(of[-1][1]["success"]), f"{name}, {display_names.percent(of[-1][1]['success'])}", "")
                )
            return [*marks, *end_labels(ends, room)]

        rows = [[display_names.label(e), *_numbers(e)] for _, curve in curves for _, e in curve]
        note = "Success on held-out games with 95% intervals."
        yield figure(f"Success by iteration, {split}", note, draw, ["policy", *_INTERVAL], rows)


def best_of_n_curves(run: dict[str, Any]) -> Iterator[Figure]:
    """Success of BoN(pi, Q) against N, a line per policy and rule of choice with two or more N."""
    for split, entries in by_split(run["results"]):
        curves: dict[tuple[str, str | None, str], list[tuple[int, Any]]] = defaultdict(list)
        for e in entries:
            if choice := BestOf.of_mode(e["mode"]):
                curves[e["policy"], e["prm"], display_names.rule(choice)].append((choice.n, e))
        curves = {key: sorted(of, key=_first) for key, of in curves.items() if len(of) >= 2}
        if not curves:
            continue
        alone = {e["policy"]: e for e in entries if e["mode"] == "policy"}

        def draw(end: float, curves: Any = curves, alone: Any = alone) -> list[Markup]:
            room = _room(end)
            all_n = sorted({n for of in curves.values() for n, _ in of})
            rules = sorted({rule for _, _, rule in curves})
            x = Scale(all_n[0], all_n[-1], LEFT + 14, end - room - 14, log=True)
            drawn = [e for of in curves.values() for _, e in of] + [alone[p] for p, *_ in curves if p in alone]
            y, ticks = success_axis(drawn)
            marks = _success_frame(y, ticks, end - room)
            marks += x_axis(x, [(n, str(n)) for n in all_n], BASE, "N, responses to choose from", end - room)
            for policy in {policy for policy, *_ in curves if policy in alone}:
                level = y(alone[policy]["success"])
                marks.append(line(LEFT, level, end - room, level, f"reference {display_names.accent(policy)}"))
            ends = []
            for at, ((policy, prm, rule), of) in enumerate(curves.items()):
                css, shift = display_names.accent(policy), 4.0 * (at - (len(curves) - 1) / 2)
                places = [(x(n) + shift, y(e["success"])) for n, e in of]
                marks.append(path(places, f"curve {css} {_dash(rules.index(rule))}"))
                marks += [mark for (px, _), (_, e) in zip(places, of, strict=True) for mark in success_mark(px, y, e)]
                by = f", {display_names.pretty(prm)}" if prm else ""
                ends.append((*places[-1], f"{display_names.pretty(policy)}{by}{rule}", css))
            return [*marks, *end_labels(ends, room)]

        dotted = "; dotted, the policy alone" if any(policy in alone for policy, *_ in curves) else ""
        yield figure(
            f"Best of N, {split}",
            f"Success when Q chooses among N responses, with 95% intervals{dotted}.",
            draw,
            ["policy", *_INTERVAL],
            [[display_names.label(e), *_numbers(e)] for of in curves.values() for _, e in of],
        )


# --- shared by the figures of success -------------------------------------------------------------------------------


def by_split(entries: Iterable[dict[str, Any]]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The entries of each split that have the same conditions."""
    splits: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for entry in entries:
        if entry["usual"]:
            splits[entry["split"]].append(entry)
    yield from splits.items()


def success_axis(
    entries: Iterable[dict[str, Any]], bottom: float = BASE, top: float = TOP, most: int = 5
) -> tuple[Scale, list[float]]:
    """A scale within [0, 1] that covers every interval, and its ticks."""
    ends = [end for e in entries for end in e["ci95"]]
    ticks = [t for t in nice_ticks(min(ends), max(ends), most) if -1e-9 <= t <= 1 + 1e-9]
    return Scale(ticks[0], ticks[-1], bottom, top), ticks


def success_mark(x: float, y: Scale, entry: dict[str, Any]) -> list[Markup]:
    """A success rate with its interval, at `x` pixels."""
    css, (low, high) = display_names.accent(entry["policy"]), entry["ci95"]
    said = f"{display_names.percent(entry['success'])} ({display_names.interval(low, high)}) of {entry['games']} games"
    return [whisker(x, y(low), y(high), css), dot(x, y(entry["success"]), css, f"{display_names.label(entry)}: {said}")]


def _success_frame(y: Scale, ticks: Sequence[float], right: float) -> list[Markup]:
    return y_axis(y, ticks, "success, %", right, "{:.0f}", 100)


def _choices(entries: Iterable[dict[str, Any]]) -> list[BestOf]:
    return [choice for e in entries if (choice := BestOf.of_mode(e["mode"]))]


def _of_iterations(entries: Iterable[dict[str, Any]], mode: str) -> list[tuple[int, dict[str, Any]]]:
    """(iteration, entry) of pi_0, pi_1, ... in `mode`; with several PRMs, the last."""
    of = {i: e for e in entries if e["mode"] == mode and (i := display_names.index(e["policy"])) is not None}
    return sorted(of.items(), key=_first)


def _first(pair: tuple[int, Any]) -> int:
    return pair[0]


def _room(end: float) -> float:
    """Pixels for the labels at the ends of curves."""
    return 150.0 if end > (WIDE - RIGHT) - 1 else 92.0


def _dash(number: int) -> str:
    return f"dash{number % _DASHES}"


def _numbers(entry: dict[str, Any]) -> list[Any]:
    return [Percent(entry["success"]), Interval(*entry["ci95"])]

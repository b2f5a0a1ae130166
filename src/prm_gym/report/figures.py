"""Figures of success: against the iteration, against N of best-of-N, against training step beside the process reward.

A figure is {"title", "note", "svg", "columns", "rows"}: `columns` and `rows` hold the same numbers as text, for those
who cannot or will not read the drawing. A figure whose data is missing is not made.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from markupsafe import Markup

from prm_gym.policies.best_of_n import BestOf
from prm_gym.report import names
from prm_gym.report.svg import (
    BOTTOM,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Scale,
    diamond,
    dot,
    drawing,
    line,
    nice_ticks,
    path,
    spread,
    text,
    whisker,
    x_axis,
    y_axis,
)

Figure = dict[str, Any]
HEIGHT = 230
BASE, END = HEIGHT - BOTTOM, WIDTH - RIGHT
_LABELS = 96  # room at the right for the names of lines
_INTERVAL = ("success %", "95%")


def learning_curves(run: dict[str, Any]) -> Iterator[Figure]:
    """Success of pi_n against n, one figure a split with two policies or more; beside it the largest best-of-N of each
    rule of choice.
    """
    for split, entries in _by_split(run["results"]):
        alone = _of_iterations(entries, "policy")
        if len(alone) < 2:
            continue
        lines = [("policy", alone)]
        largest = {names.rule(of): of for of in sorted(_choices(entries), key=lambda of: of.n)}
        for rule, choice in sorted(largest.items()):
            if best := _of_iterations(entries, choice.mode):
                lines.append((f"best of {choice.n}{rule}", best))
        x = Scale(alone[0][0], alone[-1][0], LEFT + 22, END - _LABELS)
        y, ticks = _success_axis(e for _, curve in lines for _, e in curve)
        marks = _success_frame(y, ticks)
        marks += x_axis(x, [(n, names.pretty(e["policy"])) for n, e in alone], BASE, None, END)
        ends = []
        for at, (name, curve) in enumerate(lines):
            of = [(x(n) + 9 * at, e) for n, e in curve]
            marks.append(path([(px, y(e["success"])) for px, e in of], "curve dashed" if at else "curve"))
            for px, e in of:
                css, said = names.accent(e["policy"]), _said(e)
                marks.append(whisker(px, y(e["ci95"][0]), y(e["ci95"][1]), css))
                draw = diamond if at else dot
                marks.append(draw(px, y(e["success"]), f"{css} hollow" if at else css, said))
            ends.append((of[-1][0], y(of[-1][1]["success"]), f"{name} {names.percent(of[-1][1]['success'])}", ""))
        yield {
            "title": f"Success by iteration, {split}",
            "note": "Bars are 95% intervals.",
            "svg": drawing(f"Success by iteration on {split}", HEIGHT, [*marks, *_end_labels(ends)]),
            "columns": ["policy", *_INTERVAL],
            "rows": [[names.label(e), *_numbers(e)] for _, curve in lines for _, e in curve],
        }


def best_of_n_curves(run: dict[str, Any]) -> Iterator[Figure]:
    """Success of BoN(pi, Q) against N, a line a policy and rule of choice, where there are two N or more."""
    for split, entries in _by_split(run["results"]):
        curves: dict[tuple[str, str | None, str], list[tuple[int, Any]]] = defaultdict(list)
        for e in entries:
            if choice := names.best_of(e["mode"]):
                curves[e["policy"], e["prm"], names.rule(choice)].append((choice.n, e))
        curves = {key: sorted(of, key=_first) for key, of in curves.items() if len(of) >= 2}
        if not curves:
            continue
        alone = {e["policy"]: e for e in entries if e["mode"] == "policy"}
        all_n = sorted({n for of in curves.values() for n, _ in of})
        x = Scale(all_n[0], all_n[-1], LEFT + 14, END - _LABELS, log=True)
        drawn = [e for of in curves.values() for _, e in of] + [alone[p] for p, *_ in curves if p in alone]
        y, ticks = _success_axis(drawn)
        marks = _success_frame(y, ticks)
        marks += x_axis(x, [(n, str(n)) for n in all_n], BASE, "N, responses to choose from", END)
        ends = []
        for at, ((policy, prm, rule), of) in enumerate(curves.items()):
            css, shift = names.accent(policy), 3.0 * (at - (len(curves) - 1) / 2)
            if policy in alone:
                reference = y(alone[policy]["success"])
                marks.append(line(LEFT, reference, END - _LABELS + 8, reference, f"reference {css}"))
            marks.append(path([(x(n) + shift, y(e["success"])) for n, e in of], f"curve {css}"))
            for n, e in of:
                marks.append(whisker(x(n) + shift, y(e["ci95"][0]), y(e["ci95"][1]), css))
                marks.append(dot(x(n) + shift, y(e["success"]), css, _said(e), 3.5))
            by = f", {names.pretty(prm)}" if prm else ""
            ends.append((x(of[-1][0]) + shift, y(of[-1][1]["success"]), f"{names.pretty(policy)}{by}{rule}", css))
        dotted = "; dotted, the policy alone" if any(policy in alone for policy, *_ in curves) else ""
        yield {
            "title": f"Best of N, {split}",
            "note": f"Success when Q chooses among N responses{dotted}.",
            "svg": drawing(f"Success of best-of-N on {split}", HEIGHT, [*marks, *_end_labels(ends)]),
            "columns": ["policy", *_INTERVAL],
            "rows": [[names.label(e), *_numbers(e)] for of in curves.values() for _, e in of],
        }


def hacking_curves(run: dict[str, Any]) -> Iterator[Figure]:
    """What Q says of the responses in Stage 3, above what the policy solves before, during and after it.

    Success during training is of checkpoints evaluated under the name `pi_n/checkpoint-STEP`. Where the two curves
    part, the policy has learned to please Q.
    """
    for iteration in run["iterations"]:
        n, training = iteration["n"], iteration["training"]
        if training is None:
            continue
        steps, rewards = zip(*training["points"], strict=True)
        for split, entries in _by_split(run["results"] + run["checkpoints"]):
            known = [(e["step"], e) for e in entries if e.get("n") == n]
            ends = {e["policy"]: e for e in entries if e["mode"] == "policy"}
            known += [(0, ends[f"pi_{n - 1}"])] if f"pi_{n - 1}" in ends else []
            known += [(steps[-1], ends[f"pi_{n}"])] if f"pi_{n}" in ends else []
            if len(known) >= 2:
                yield _hacking_curve(n, split, training["unit"], list(zip(steps, rewards, strict=True)), known)


def _hacking_curve(
    n: int, split: str, unit: str, reward: list[tuple[int, float]], success: list[tuple[int, Any]]
) -> Figure:
    success = sorted(success, key=_first)
    upper, gap, height = 118.0, 40.0, 300.0
    base = height - BOTTOM
    x = Scale(0, max(reward[-1][0], success[-1][0]), LEFT + 8, END - 8)
    y_ticks = nice_ticks(min(r for _, r in reward), max(r for _, r in reward), 3)
    y1 = Scale(y_ticks[0], y_ticks[-1], upper, TOP)
    y2, ticks = _success_axis((e for _, e in success), base, upper + gap, 3)
    css = f"p{(n - 1) % 5 + 1}"
    marks = [
        *y_axis(y1, y_ticks, "process reward, mean logit of Q", END),
        *y_axis(y2, ticks, "success, %", END, "{:.0f}", 100),
        *x_axis(x, [(t, f"{t:g}") for t in nice_ticks(0, x.high, 4) if t <= x.high], base, f"training {unit}", END),
        path([(x(t), y1(r)) for t, r in reward], f"curve {css}"),
        *(dot(x(t), y1(r), css, f"{unit} {t}: {r:.3f}", 2.5) for t, r in reward),
        path([(x(t), y2(e["success"])) for t, e in success], f"curve {css}"),
    ]
    for t, e in success:
        marks.append(whisker(x(t), y2(e["ci95"][0]), y2(e["ci95"][1]), css))
        marks.append(dot(x(t), y2(e["success"]), css, f"{unit} {t}: {_said(e)}"))
    by_step = {t: [f"{t}", f"{r:.3f}", ""] for t, r in reward}
    for t, e in success:
        by_step.setdefault(t, [f"{t}", "", ""])[2] = names.percent(e["success"])
    policy, q = names.pretty(f"pi_{n}"), names.pretty(f"Q_{n - 1}")
    return {
        "title": f"Training {policy} on {q}, {split}",
        "note": f"A rising process reward with falling success would be {policy} exploiting {q}.",
        "svg": drawing(f"Process reward and success while {policy} was trained", height, marks),
        "columns": [unit, "process reward", "success %"],
        "rows": [by_step[t] for t in sorted(by_step)],
    }


# --- shared by the curves of success --------------------------------------------------------------------------------


def _by_split(entries: Iterable[dict[str, Any]]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The entries of each split that were played under the same conditions."""
    splits: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for entry in entries:
        if entry["usual"]:
            splits[entry["split"]].append(entry)
    yield from splits.items()


def _choices(entries: Iterable[dict[str, Any]]) -> list[BestOf]:
    return [choice for e in entries if (choice := names.best_of(e["mode"]))]


def _of_iterations(entries: Iterable[dict[str, Any]], mode: str) -> list[tuple[int, dict[str, Any]]]:
    """(iteration, entry) of pi_0, pi_1, ... in `mode`, in order; of two PRMs the later."""
    of = {i: e for e in entries if e["mode"] == mode and (i := names.index(e["policy"])) is not None}
    return sorted(of.items(), key=_first)


def _first(pair: tuple[int, Any]) -> int:
    return pair[0]


def _success_axis(
    entries: Iterable[dict[str, Any]], bottom: float = BASE, top: float = TOP, most: int = 5
) -> tuple[Scale, list[float]]:
    """A scale that holds every interval, within [0, 1], and its ticks."""
    ends = [end for e in entries for end in e["ci95"]]
    ticks = [t for t in nice_ticks(min(ends), max(ends), most) if -1e-9 <= t <= 1 + 1e-9]
    return Scale(ticks[0], ticks[-1], bottom, top), ticks


def _success_frame(y: Scale, ticks: Sequence[float]) -> list[Markup]:
    return y_axis(y, ticks, "success, %", END - _LABELS + 8, "{:.0f}", 100)


def _end_labels(ends: Sequence[tuple[float, float, str, str]]) -> list[Markup]:
    """(x, y, words, css) at the right end of each line, moved apart where they would overlap."""
    heights = spread([y for _, y, _, _ in ends], 14)
    right = max((x for x, _, _, _ in ends), default=0)
    return [text(right + 9, y + 4, words, f"label {css}") for (_, _, words, css), y in zip(ends, heights, strict=True)]


def _said(entry: dict[str, Any]) -> str:
    return f"{names.label(entry)}: {' ('.join(_numbers(entry))}) of {entry['games']} games"


def _numbers(entry: dict[str, Any]) -> list[str]:
    return [names.percent(entry["success"]), names.interval(*entry["ci95"])]

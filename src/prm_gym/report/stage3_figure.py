"""Stage 3 by training step: process reward, KL divergence from the initial policy, success.

If the process reward rises and success does not, the policy exploits Q. The KL divergence tells how far the policy has
moved for its reward.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from markupsafe import Markup

from prm_gym.report import display_names
from prm_gym.report.cells import Percent
from prm_gym.report.figure import Figure, figure
from prm_gym.report.success_figures import by_split, success_axis, success_mark
from prm_gym.report.svg import BOTTOM, LEFT, TOP, Scale, line_hint, nice_ticks, path, x_axis, y_axis

Entry = dict[str, Any]
_PANEL, _GAP = 92.0, 36.0  # pixels: height of a panel's data, and the gap between panels


def stage3_figures(run: dict[str, Any]) -> Iterator[Figure]:
    """One figure per iteration and split. Success during training is that of checkpoints evaluated under the name
    `pi_n/checkpoint-STEP`.
    """
    for iteration in run["iterations"]:
        n, training = iteration["n"], iteration["training"]
        if training is None:
            continue
        last = training["points"][-1][0]
        measured: dict[str | None, list[tuple[int, Entry]]] = {}
        for split, entries in by_split(run["results"] + run["checkpoints"]):
            alone = {e["policy"]: e for e in entries if e["mode"] == "policy"}
            known = [(e["step"], e) for e in entries if e.get("n") == n]
            known += [(0, alone[f"pi_{n - 1}"])] if f"pi_{n - 1}" in alone else []
            known += [(last, alone[f"pi_{n}"])] if f"pi_{n}" in alone else []
            if len(known) >= 2:
                measured[split] = sorted(known, key=lambda pair: pair[0])
        for shown, success in (measured or {None: []}).items():
            yield _stage3(n, shown, training, success)


def _stage3(n: int, split: str | None, training: dict[str, Any], success: list[tuple[int, Entry]]) -> Figure:
    unit, reward, kl = training["unit"], training["points"], training["kl"]
    last = max(reward[-1][0], success[-1][0] if success else 0)
    panels = [("process reward: mean logit of Q", reward)]
    panels += [("KL from the policy before, nats a response", kl)] if kl else []
    count = len(panels) + bool(success)
    height = TOP + count * _PANEL + (count - 1) * _GAP + BOTTOM
    css = f"p{(n - 1) % 5 + 1}"

    def draw(end: float) -> list[Markup]:
        x = Scale(0, last, LEFT + 8, end - 8)
        marks, top = [], float(TOP)
        for name, points in panels:
            ticks = nice_ticks(min(v for _, v in points), max(v for _, v in points), 3)
            y = Scale(ticks[0], ticks[-1], top + _PANEL, top)
            marks += [*y_axis(y, ticks, name, end), path([(x(t), y(v)) for t, v in points], f"curve {css}")]
            marks += [line_hint(x(t), y(v), f"{unit} {t}: {v:.3f}") for t, v in points]
            top += _PANEL + _GAP
        if success:
            y, ticks = success_axis((e for _, e in success), top + _PANEL, top, 3)
            marks += y_axis(y, ticks, f"success on {split}, %", end, "{:.0f}", 100)
            marks.append(path([(x(t), y(e["success"])) for t, e in success], f"curve {css}"))
            marks += [mark for t, e in success for mark in success_mark(x(t), y, e)]
        steps = [(t, f"{t:g}") for t in nice_ticks(0, last, 4) if t <= last]
        return [*marks, *x_axis(x, steps, height - BOTTOM, f"training {unit}", end)]

    policy, q = display_names.pretty(f"pi_{n}"), display_names.pretty(f"Q_{n - 1}")
    by_step: dict[int, list[Any]] = {}
    for column, points in ((1, reward), (2, kl)):
        for t, value in points:
            by_step.setdefault(t, [str(t), None, None, None])[column] = f"{value:.3f}"
    for t, e in success:
        by_step.setdefault(t, [str(t), None, None, None])[3] = Percent(e["success"])
    missing = "" if kl else " The log holds no KL divergence."
    return figure(
        f"Training {policy} on {q}{f', {split}' if split else ''}",
        f"A rising process reward with falling success would be {policy} exploiting {q}.{missing}",
        draw,
        [unit, "process reward", "KL", "success %"],
        [by_step[t] for t in sorted(by_step)],
        height,
    )

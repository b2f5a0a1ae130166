"""Rules to stop a long Stage 3 without measuring success, and the success that they reach."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from statistics import mean
from typing import Any

Curve = dict[float, float]  # step -> value
_JUDGES = ("process reward by the judge", "lower bound of three Qs", "value on held-out branches")


def stopping_rules(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The step that each rule chooses and the success there, as means over runs (one per seed), and the true peak of
    success for comparison.

    A first peak is the last point before a curve falls for the first time. The KL rule stops at the mean KL that the
    other runs had at their peaks; it needs two runs or more.
    """
    runs = [_curves(rows, seed) for seed in range(len(rows[0]["per_seed"]))]
    peaks = [_highest(run["success"]) for run in runs]
    spent = [run["KL from pi_0"][peak] for run, peak in zip(runs, peaks, strict=True)]
    stops = {f"the highest {name}": [_highest(run[name]) for run in runs] for name in _JUDGES}
    stops |= {f"the first peak of the {name}": [_first_peak(run[name]) for run in runs] for name in _JUDGES}
    if len(runs) > 1:
        budgets = [(sum(spent) - own) / (len(spent) - 1) for own in spent]
        stops["the KL of the other runs' peaks"] = [
            _reached(run["KL from pi_0"], budget) for run, budget in zip(runs, budgets, strict=True)
        ]
    found = {"step of the highest success": mean(peaks), "KL there": mean(spent)}
    found["highest success"] = mean(run["success"][peak] for run, peak in zip(runs, peaks, strict=True))
    found["success at the end"] = mean(run["success"][max(run["success"])] for run in runs)
    for rule, steps in stops.items():
        found[f"step of {rule}"] = mean(steps)
        found[f"success at {rule}"] = mean(run["success"][step] for run, step in zip(runs, steps, strict=True))
    return found


def _curves(rows: Sequence[dict[str, Any]], seed: int) -> dict[str, Curve]:
    curves: dict[str, Curve] = {}
    for row in rows:
        curves.setdefault(row["series"], {})[row["x"]] = row["per_seed"][seed]
    return curves


def _highest(curve: Curve) -> float:
    return max(curve, key=curve.__getitem__)


def _first_peak(curve: Curve) -> float:
    """The last step before `curve` falls for the first time; the last step of all if it never falls."""
    return next((step for step, after in pairwise(sorted(curve)) if curve[after] < curve[step]), max(curve))


def _reached(curve: Curve, budget: float) -> float:
    """The first step at which `curve` reaches `budget`; the last step if it never does."""
    return next((step for step in sorted(curve) if curve[step] >= budget), max(curve))

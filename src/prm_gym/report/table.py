"""Table 1 of the paper: success by task type with 95% intervals and mean actions, the best of each column marked."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from prm_gym.evaluate import TASK_TYPES, wilson
from prm_gym.report import names
from prm_gym.report.svg import Scale, dot, drawing, line


def tables(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One table a split: {"split", "games", "columns": [name], "rows": [{"name", "accent", "run" where it is the
    first of its run and there are several, "forest", "cells": [{"value", "interval", "best"}]}]}.
    """
    splits = list(dict.fromkeys(entry["split"] for run in runs for entry in run["results"]))
    return [_table(runs, split) for split in splits]


def _table(runs: list[dict[str, Any]], split: str) -> dict[str, Any]:
    entries = [(run["name"], entry) for run in runs for entry in run["results"] if entry["split"] == split]
    present = {kind for _, entry in entries for kind in entry["by_task_type"]}
    kinds = [kind for kind in TASK_TYPES if kind in present] + sorted(present - TASK_TYPES.keys())
    rows: list[dict[str, Any]] = []
    before = None
    for run, entry in entries:
        rows.append(
            {
                "name": names.label(entry),
                "accent": names.accent(entry["policy"]),
                "run": run if run != before and len(runs) > 1 else None,
                "seeds": entry["seeds"],
                "games": entry["games"],
                "forest": _forest(entry),
                "cells": [_cell(entry, kind) for kind in (None, *kinds)],
                "actions": {"value": f"{entry['actions']:.1f}", "number": entry["actions"], "best": False},
            }
        )
        before = run
    for column in range(len(kinds) + 1):
        _mark([row["cells"][column] for row in rows], max)
    _mark([row["actions"] for row in rows], min)
    games = sorted({row["games"] for row in rows})
    return {
        "split": split,
        "games": games[0] if len(games) == 1 else None,
        "columns": [names.task_type(kind) for kind in kinds],
        "rows": rows,
        "seeds": max(row["seeds"] for row in rows),
    }


def _cell(entry: dict[str, Any], kind: str | None) -> dict[str, Any]:
    """Success in %, of all games (`kind` None, with the interval of results.json) or of one task type."""
    if kind is None:
        share, (low, high) = entry["success"], entry["ci95"]
    elif kind in entry["by_task_type"]:
        of = entry["by_task_type"][kind]
        share, (low, high) = of["success"], wilson(round(of["success"] * of["games"]), of["games"])
    else:
        return {"value": names.DASH, "interval": "", "number": None, "best": False}
    return {"value": names.percent(share), "interval": names.interval(low, high), "number": share, "best": False}


def _mark(cells: list[dict[str, Any]], best_of: Any) -> None:
    """Mark the best, and all that print as it does; nothing where there is no choice."""
    known = [cell for cell in cells if cell["number"] is not None]
    if len({cell["value"] for cell in known}) < 2:
        return
    winner = best_of(known, key=lambda cell: cell["number"])["value"]
    for cell in known:
        cell["best"] = cell["value"] == winner


def _forest(entry: dict[str, Any]) -> Markup:
    """Success and its interval on a line from 0 to 100%."""
    x, middle = Scale(0, 1, 4, 146), 10.0
    low, high = entry["ci95"]
    css = names.accent(entry["policy"])
    said = f"{names.percent(entry['success'])}%, 95% interval {names.interval(low, high)}%"
    marks = [
        line(x(0), middle, x(1), middle, "grid"),
        line(x(low), middle, x(high), middle, f"whisker {css}"),
        dot(x(entry["success"]), middle, css if entry["mode"] == "policy" else f"{css} hollow", said, 3.5),
    ]
    return drawing(said, 20, marks, width=150, css="forest")

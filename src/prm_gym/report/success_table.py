"""Table 1 of the paper: success by task type with 95% intervals, and mean actions.

A cell is bold only if it is significantly the best of its column.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from markupsafe import Markup

from prm_gym.evaluation.intervals import wilson
from prm_gym.evaluation.results_file import has_returns
from prm_gym.evaluation.results_table import SHORT_NAMES
from prm_gym.report import display_names, paired_difference
from prm_gym.report.cells import Interval, Percent
from prm_gym.report.paired_difference import Difference
from prm_gym.report.svg import Scale, dot, drawing, line, nice_ticks, text

Entry = dict[str, Any]
_STRIP = 220  # pixels


def tables(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One table a split: {"split", "games", "kinds": [name], "rewarded", "axis", "lines": [{"name", "accent", "run"
    where it is the first of its run and there are several, "strip", "cells": [{"value", "interval", "best"}],
    "return"}], "title", "columns", "rows"}, the last three for the CSV file. Returns are shown if `rewarded`: they
    differ from success.
    """
    splits = list(dict.fromkeys(entry["split"] for run in runs for entry in run["results"]))
    return [_table(runs, split) for split in splits]


def _table(runs: list[dict[str, Any]], split: str) -> dict[str, Any]:
    entries = [{**entry, "run": run["name"]} for run in runs for entry in run["results"] if entry["split"] == split]
    present = {kind for entry in entries for kind in entry["by_task_type"]}
    kinds = [kind for kind in SHORT_NAMES if kind in present] + sorted(present - SHORT_NAMES.keys())
    rewarded = any(has_returns(entry) for entry in entries)
    ticks = [t for t in nice_ticks(*_range(entries), 4) if -1e-9 <= t <= 1 + 1e-9]
    columns: list[list[dict[str, Any]]] = []
    for kind in (None, *kinds):
        best = _best(entries, [_share(e, kind) for e in entries], partial(paired_difference.success, kind=kind))
        columns.append([_cell(e, kind, e is best) for e in entries])
    fewest = _best(entries, [-e["actions"] for e in entries], lambda a, b: paired_difference.actions(b, a))
    rows = []
    for i, entry in enumerate(entries):
        rows.append(
            {
                "name": display_names.label(entry),
                "accent": display_names.accent(entry["policy"]),
                "run": entry["run"] if len(runs) > 1 and (i == 0 or entries[i - 1]["run"] != entry["run"]) else None,
                "games": entry["games"],
                "strip": _strip(entry, ticks),
                "cells": [column[i] for column in columns],
                "return": f"{entry['return']:.3f}",
                "actions": {"value": f"{entry['actions']:.1f}", "best": entry is fewest},
            }
        )
    games = sorted({entry["games"] for entry in entries})
    return {
        "split": split,
        "games": games[0] if len(games) == 1 else None,
        "kinds": [display_names.task_type(kind) for kind in kinds],
        "rewarded": rewarded,
        "axis": _axis(ticks),
        "lines": rows,
        "title": f"success {split}",
        "seeds": max(entry["seeds"] for entry in entries),
        **_numbers(entries, kinds, rewarded),
    }


def _share(entry: Entry, kind: str | None) -> float | None:
    of = entry if kind is None else entry["by_task_type"].get(kind)
    return None if of is None else of["success"]


def _interval(entry: Entry, kind: str | None) -> tuple[float, float]:
    """Of all games that of results.json."""
    if kind is None:
        low, high = entry["ci95"]
        return low, high
    of = entry["by_task_type"][kind]
    return wilson(round(of["success"] * of["games"]), of["games"])


def _cell(entry: Entry, kind: str | None, best: bool) -> dict[str, Any]:
    """Success in %, of all games (`kind` None) or of one task type."""
    share = _share(entry, kind)
    if share is None:
        return {"value": display_names.DASH, "interval": "", "best": False}
    return {
        "value": display_names.percent(share),
        "interval": display_names.interval(*_interval(entry, kind)),
        "best": best,
    }


def _best(
    entries: list[Entry], values: list[float | None], lead: Callable[[Entry, Entry], Difference | None]
) -> Entry | None:
    """The entry of the largest value, if its lead over each other entry is significant; else None."""
    known = [(value, number) for number, value in enumerate(values) if value is not None]
    if len(known) < 2:
        return None
    best = entries[max(known)[1]]
    others = [entries[number] for _, number in known if entries[number] is not best]
    leads = [lead(best, other) for other in others]
    return best if all(difference is not None and difference.sign > 0 for difference in leads) else None


def _numbers(entries: list[Entry], kinds: list[str], rewarded: bool) -> dict[str, Any]:
    """The same and more for the CSV file: {"columns": [name], "rows": [[cell]]}."""
    of_kinds = [
        column
        for kind in kinds
        for column in (f"{display_names.task_type(kind)} %", f"{display_names.task_type(kind)} games")
    ]
    head = ["run", "policy", "prm", "mode", "split", "seeds", "games", "success %", "95%"]
    head += [*(["return"] if rewarded else []), "actions", *of_kinds]
    rows = []
    for entry in entries:
        row = [entry[key] for key in ("run", "policy", "prm", "mode", "split", "seeds", "games")]
        row += [
            Percent(entry["success"]),
            Interval(*entry["ci95"]),
            *([entry["return"]] if rewarded else []),
            entry["actions"],
        ]
        for kind in kinds:
            of = entry["by_task_type"].get(kind)
            row += [None, None] if of is None else [Percent(of["success"]), of["games"]]
        rows.append(row)
    return {"columns": head, "rows": rows}


def _range(entries: list[Entry]) -> tuple[float, float]:
    ends = [end for entry in entries for end in entry["ci95"]]
    return min(ends), max(ends)


def _scale(ticks: list[float]) -> Scale:
    return Scale(ticks[0], ticks[-1], 12, _STRIP - 16)


def _axis(ticks: list[float]) -> Markup:
    """The numbers above the strips."""
    x = _scale(ticks)
    marks = [text(x(t), 12, f"{100 * t:.0f}{'%' if t == ticks[-1] else ''}", "tick", "middle") for t in ticks]
    return drawing("Scale of the intervals, %", 16, marks, width=_STRIP, css="strip")


def _strip(entry: Entry, ticks: list[float]) -> Markup:
    """Success and its interval on the scale of the table."""
    x, height, css = _scale(ticks), 34.0, display_names.accent(entry["policy"])
    low, high = entry["ci95"]
    said = f"{display_names.percent(entry['success'])}%, 95% interval {display_names.interval(low, high)}%"
    # Grid lines are longer than any row and clipped by the cell, so they continue from row to row.
    marks = [line(x(t), -height, x(t), 9 * height, "grid") for t in ticks]
    marks += [
        line(x(low), height / 2, x(high), height / 2, f"whisker {css}"),
        dot(x(entry["success"]), height / 2, css, said),
    ]
    return drawing(said, height, marks, width=_STRIP, css="strip")

"""The first lines of the page: the first and the last policy of a run, and the gain on the same games."""

from __future__ import annotations

from typing import Any

from prm_gym.policies.best_of_n import BestOf
from prm_gym.report import display_names, paired_difference
from prm_gym.report.paired_difference import Difference

_PRIMARY = "valid_unseen"  # the split of the headline, if there is one of that name
_MINUS = "\N{MINUS SIGN}"


def headline(run: dict[str, Any]) -> dict[str, Any] | None:
    """{"run", "split", "games", "figures": [{"name", "accent", "value", "interval", "gain"}]}; None without results.

    The figures are the first policy, the last, and the last at its largest N (by plain Q, if measured). A policy's gain
    is over the first one, that of best-of-N over the same policy alone. With different games or step limits there is no
    gain.
    """
    splits = [entry["split"] for entry in run["results"]]
    if not splits:
        return None
    split = _PRIMARY if _PRIMARY in splits else splits[-1]
    entries = [entry for entry in run["results"] if entry["split"] == split]
    alone = sorted((e for e in entries if e["mode"] == "policy"), key=_order)
    chosen = sorted((e for e in entries if e["mode"] != "policy"), key=_order)[-1:]
    shown = alone if len(alone) < 2 else [alone[0], alone[-1]]
    figures = [_figure(e, shown[0] if e is not shown[0] else None) for e in shown]
    for e in chosen:
        figures.append(_figure(e, next((p for p in alone if p["policy"] == e["policy"]), None)))
    return {
        "run": run["name"],
        "split": split,
        "games": max(e["games"] for e in [*shown, *chosen]),
        "figures": figures,
    }


def points(difference: Difference) -> str:
    """`+12.5 points (95%: 4.1 to 20.9)`, without an interval if too few games differ."""
    said = f"{100 * difference.mean:+.1f} points"
    if difference.enough:
        said += f" (95%: {100 * difference.low:.1f} to {100 * difference.high:.1f})"
    return said.replace("-", _MINUS)


def _how(difference: Difference) -> str:
    """`120 games, paired`"""
    if difference.games is None:
        return "not paired: the episodes of both are not here"
    said = f"{difference.games} games, paired"
    if not difference.enough:
        said += f"; {difference.differ} decided differently, too few for an interval"
    return said


def _order(entry: dict[str, Any]) -> tuple[int, int, bool]:
    choice = BestOf.of_mode(entry["mode"])
    plain = choice is not None and not display_names.rule(choice)
    return display_names.index(entry["policy"]) or 0, choice.n if choice else 0, plain


def _alike(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether both have the same games and step limit, as far as known."""
    fields = ("games_fingerprint", "max_episode_steps")
    return all(one.get(field) == other.get(field) or None in (one.get(field), other.get(field)) for field in fields)


def _figure(entry: dict[str, Any], before: dict[str, Any] | None) -> dict[str, Any]:
    difference = paired_difference.success(entry, before) if before and _alike(entry, before) else None
    said = None
    if before and difference:
        over = f"over {display_names.label(before)}; {_how(difference)}"
        said = {"points": points(difference), "over": over, "sign": difference.sign}
    return {
        "name": display_names.label(entry),
        "accent": display_names.accent(entry["policy"]),
        "value": display_names.percent(entry["success"]),
        "interval": display_names.interval(*entry["ci95"]),
        "gain": said,
    }

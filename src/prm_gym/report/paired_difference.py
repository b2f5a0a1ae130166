"""How much better one row of results is than another, and whether that is more than noise.

Where both played the same games the difference is taken game by game (`evaluation.intervals.gain`): games differ far
more than policies, and a difference of two policies on one game is free of that. Without the episodes, or on different
games, it is the difference of two independent proportions (Newcombe 1998, method 10, from Wilson's intervals).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from prm_gym.evaluation.intervals import gain, wilson
from prm_gym.report.episode_summaries import Played

LEAST_DIFFERING = 6  # games; of fewer a sign test cannot reach p < 0.05, as 2 * 0.5^5 = 0.0625
RULE = f", and the games on which the two differ are {LEAST_DIFFERING} or more"


@dataclass(frozen=True)
class Difference:
    """Mean difference with its 95% interval; `games` that both played, None if they are not paired; of them `differ`
    those on which the two are not alike.
    """

    mean: float
    low: float
    high: float
    games: int | None = None
    differ: int = 0

    @property
    def sign(self) -> int:
        """1 or -1 where the interval excludes 0 and the games that differ can show it, else 0."""
        return 0 if not self.enough else 1 if self.low > 0 else -1 if self.high < 0 else 0

    @property
    def enough(self) -> bool:
        """Whether so many games differ that chance would not make them all differ in one way."""
        return self.games is None or self.differ >= LEAST_DIFFERING


def success(one: dict[str, Any], other: dict[str, Any], kind: str | None = None) -> Difference | None:
    """Success of `one` less that of `other` (pooled entries), of all games or of one task type that both have."""
    if found := _paired(one, other, lambda played: played.won, kind):
        return replace(found, low=max(-1.0, found.low), high=min(1.0, found.high))  # a share lies in [0, 1]
    if kind is None:
        shares = [(entry["success"], entry["games"]) for entry in (one, other)]
    elif kind in one["by_task_type"] and kind in other["by_task_type"]:
        shares = [(of["success"], of["games"]) for of in (one["by_task_type"][kind], other["by_task_type"][kind])]
    else:
        return None
    (p, n), (q, m) = shares
    (p_low, p_high), (q_low, q_high) = wilson(round(p * n), n), wilson(round(q * m), m)
    return Difference(p - q, p - q - math.hypot(p - p_low, q_high - q), p - q + math.hypot(p_high - p, q - q_low))


def actions(one: dict[str, Any], other: dict[str, Any]) -> Difference | None:
    """Mean actions an episode of `one` less those of `other`, in pairs alone: else their spread is unknown."""
    return _paired(one, other, lambda played: played.actions, None)


def _paired(
    one: dict[str, Any], other: dict[str, Any], value: Callable[[Played], float], kind: str | None
) -> Difference | None:
    if one["split"] != other["split"] or not _same_games(one, other):
        return None
    seeds = sorted(one["played"].keys() & other["played"].keys())
    tables = [
        [
            {game: (of.kind, value(of)) for game, of in entry["played"][seed].items() if kind in (None, of.kind)}
            for entry in (one, other)
        ]
        for seed in seeds
    ]
    common = set.intersection(*(a.keys() & b.keys() for a, b in tables)) if tables else set()
    if not common:
        return None
    estimate = gain([a for a, _ in tables], [b for _, b in tables])
    differ = sum(any(a[game][1] != b[game][1] for a, b in tables) for game in common)
    return Difference(estimate.mean, *estimate.ci95, len(common), differ)


def _same_games(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Within a run, games of one name are the same; between runs their fingerprints say so."""
    if one.get("run") == other.get("run"):
        return True
    prints = [entry.get("games_fingerprint") for entry in (one, other)]
    return prints[0] is not None and prints[0] == prints[1]

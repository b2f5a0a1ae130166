"""The difference of two results, and whether it is more than noise.

If both played the same games, differences are taken game by game (`evaluation.intervals.gain`), which removes the large
variance between games. Without the episodes, or on different games, it is the difference of two independent proportions
(Newcombe 1998, method 10, from Wilson's intervals).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from prm_gym.evaluation.intervals import gain, wilson
from prm_gym.report.episode_summaries import Played

LEAST_DIFFERING = 6  # games; with fewer a sign test cannot reach p < 0.05: 2 * 0.5^5 = 0.0625
RULE = f", and the games on which the two differ are {LEAST_DIFFERING} or more"


@dataclass(frozen=True)
class Difference:
    """Mean difference with its 95% interval. `games` is the number that both played, None if not paired; on `differ` of
    them the outcomes differ.
    """

    mean: float
    low: float
    high: float
    games: int | None = None
    differ: int = 0

    @property
    def sign(self) -> int:
        """1 or -1 if the interval excludes 0 and enough games differ, else 0."""
        return 0 if not self.enough else 1 if self.low > 0 else -1 if self.high < 0 else 0

    @property
    def enough(self) -> bool:
        """Whether enough games differ for a sign test to be significant."""
        return self.games is None or self.differ >= LEAST_DIFFERING


def success(one: dict[str, Any], other: dict[str, Any], kind: str | None = None) -> Difference | None:
    """Success of `one` minus that of `other` (pooled entries), on all games or on one task type that both have."""
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
    """Mean actions per episode of `one` minus those of `other`; only if paired, since else the variance is unknown."""
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
    """Within a run, games of the same split are the same; between runs, if their fingerprints are equal."""
    if one.get("run") == other.get("run"):
        return True
    prints = [entry.get("games_fingerprint") for entry in (one, other)]
    return prints[0] is not None and prints[0] == prints[1]

"""Success rates and paired gains over games and seeds, with 95% intervals.

Policies are compared on the same games. With several seeds the interval covers games and seeds: a mean over G games and
S seeds has the variance v_games / G + v_seeds / S, where v_games is the variance between games of the mean over seeds,
and v_seeds the variance of the seeds' means beyond that explained by G games (a random-effects estimate, 0 if
negative). With one seed it covers games alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from prm_gym.errors import UserError
from prm_gym.store import read_episodes

Z95 = 1.959963984540054  # the 97.5% quantile of the standard normal distribution

Outcome = dict[str, tuple[str, float]]
"""game_id -> (task type, share of its episodes that won)"""


def wilson(successes: float, n: float) -> tuple[float, float]:
    """The 95% Wilson score interval of a proportion (Wilson 1927); [0, 1] without a sample."""
    if n == 0:
        return 0.0, 1.0
    z = Z95
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95% interval; `per_seed` are the means of each seed."""

    mean: float
    ci95: tuple[float, float]
    per_seed: list[float]
    games: int


def outcome(episodes: Path) -> Outcome:
    """The outcome of the episodes in a store. Raises `UserError` if there is none."""
    won: dict[str, list[bool]] = {}
    kind: dict[str, str] = {}
    for episode in read_episodes(episodes):
        won.setdefault(episode.game_id, []).append(episode.won)
        kind[episode.game_id] = episode.task_type
    if not won:
        raise UserError(episodes, "no episode there", "remove its stage folder and run again")
    return {game: (kind[game], sum(of) / len(of)) for game, of in won.items()}


def success(outcomes: Sequence[Outcome]) -> Estimate:
    """Success of one policy from one outcome per seed; Wilson's interval for a single seed."""
    if len(outcomes) == 1:
        values = [share for _, share in outcomes[0].values()]
        mean = math.fsum(values) / len(values)
        return Estimate(mean, wilson(round(mean * len(values)), len(values)), [mean], len(values))
    return _estimate(_table([{game: share for game, (_, share) in of.items()} for of in outcomes]))


def gain(better: Sequence[Outcome], worse: Sequence[Outcome]) -> Estimate:
    """Mean difference of success, seed by seed, on the games that both played."""
    pairs = zip(better, worse, strict=True)
    return _estimate(_table([{game: of[game][1] - to[game][1] for game in of.keys() & to.keys()} for of, to in pairs]))


def interval(shares: Sequence[float], counts: Sequence[int]) -> tuple[float, float]:
    """The 95% interval of the mean of `shares` p, one per seed, each of n binary cases (`counts`).

    The variance is that of the module over S seeds, with mean(p (1 - p) / n) in place of v_games / G.
    """
    p, n = np.array(shares), np.array(counts)
    within, between = float((p * (1 - p) / n).mean()), float(p.var(ddof=1)) if len(p) > 1 else 0.0
    half = Z95 * math.sqrt(max(within, between) / len(p))
    return float(p.mean()) - half, float(p.mean()) + half


def by_task_type(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Mean success by task type, seeds pooled."""
    found: dict[str, list[float]] = {}
    for of in outcomes:
        for kind, share in of.values():
            found.setdefault(kind, []).append(share)
    return {kind: math.fsum(of) / len(of) for kind, of in sorted(found.items())}


def _table(seeds: Sequence[dict[str, float]]) -> np.ndarray:
    """[seeds, games] over the games that every seed has."""
    games = sorted(set.intersection(*(set(of) for of in seeds)))
    return np.array([[of[game] for game in games] for of in seeds])


def _estimate(values: np.ndarray) -> Estimate:
    seeds, games = values.shape
    per_seed = values.mean(axis=1)
    variance = values.mean(axis=0).var(ddof=1) / games if games > 1 else 0.0
    if seeds > 1:
        within = values.var(axis=1, ddof=1).mean() / games
        variance += max(0.0, per_seed.var(ddof=1) - within) / seeds
    mean, half = float(values.mean()), Z95 * math.sqrt(variance)
    return Estimate(mean, (mean - half, mean + half), [float(m) for m in per_seed], games)

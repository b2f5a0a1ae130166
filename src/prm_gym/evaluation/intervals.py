"""Success rates and paired gains over games and seeds, with 95% intervals.

Policies are compared on the same games. With several seeds the interval covers games and seeds, which are crossed
random effects: a mean over G games and S seeds has the variance v_games / G + v_seeds / S. Here v_games is the variance
between games of the mean over seeds; v_seeds is the variance of the seeds' means beyond r / G, which the residual r of
games and seeds explains (0 if negative). Half the interval is sqrt(z^2 v_games / G + t^2 v_seeds / S), with Student's t
of S - 1 degrees of freedom, since few seeds say little about v_seeds. With one seed it covers games alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from prm_gym.errors import UserError
from prm_gym.store import read_episodes

Z95 = 1.959963984540054  # the 97.5% quantile of the standard normal distribution
_T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)  # and of Student's t with 1 to 9 degrees

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
    """Success of one policy, an outcome per seed; Wilson's interval for one seed, or if all games end alike."""
    if len(outcomes) == 1:
        values = [share for _, share in outcomes[0].values()]
        mean = math.fsum(values) / len(values)
        return Estimate(mean, wilson(round(mean * len(values)), len(values)), [mean], len(values))
    table = _table([{game: share for game, (_, share) in of.items()} for of in outcomes])
    found = _estimate(table)
    low, high = found.ci95
    if np.ptp(table) == 0:  # the variance is unknown, not 0
        low, high = wilson(round(found.mean * found.games), found.games)
    elif found.games == 1:  # which says nothing of others
        low, high = 0.0, 1.0
    return replace(found, ci95=(max(0.0, low), min(1.0, high)))


def gain(better: Sequence[Outcome], worse: Sequence[Outcome]) -> Estimate:
    """Mean difference of success, seed by seed, on the games that all played. Raises `UserError` if there is none."""
    pairs = zip(better, worse, strict=True)
    differences = [{game: of[game][1] - to[game][1] for game in of.keys() & to.keys()} for of, to in pairs]
    return _estimate(_table(differences))


def interval(shares: Sequence[float], counts: Sequence[int]) -> tuple[float, float]:
    """The 95% interval of the mean of `shares` p, one per seed, each of n binary cases of its own (`counts`).

    With w = mean(p (1 - p) / n) and v the variance of p beyond w, half of it is sqrt((z^2 w + t^2 v) / S).
    """
    p, n = np.array(shares), np.array(counts)
    within = float((p * (1 - p) / n).mean())
    half = math.sqrt(Z95**2 * within / len(p) + _of_seeds(p, within))
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
    if not games:
        raise UserError("games", "no game was played by all", "compare evaluations on the same games")
    return np.array([[of[game] for game in games] for of in seeds])


def _estimate(values: np.ndarray) -> Estimate:
    seeds, games = values.shape
    per_seed = values.mean(axis=1)
    mean, square = float(values.mean()), 0.0
    if games > 1:
        per_game = values.mean(axis=0)
        residual = values - per_game - per_seed[:, None] + mean
        r = float((residual**2).sum()) / max(1, (seeds - 1) * (games - 1))
        square = Z95**2 * float(per_game.var(ddof=1)) / games + _of_seeds(per_seed, r / games)
    half = math.sqrt(square)
    return Estimate(mean, (mean - half, mean + half), [float(m) for m in per_seed], games)


def _of_seeds(means: np.ndarray, explained: float) -> float:
    """t^2 v / S, with v the variance of the seeds' means beyond `explained`; 0 for one seed."""
    seeds = len(means)
    if seeds == 1:
        return 0.0
    t = _T95[min(seeds - 1, len(_T95)) - 1]  # for more than ten seeds a little too wide
    return t**2 * max(0.0, float(means.var(ddof=1)) - explained) / seeds

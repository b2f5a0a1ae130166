"""Intervals of findings, against simulation: a 95% interval covers the truth in about 95 of 100 cases."""

from __future__ import annotations

import numpy as np
import pytest

from prm_gym.errors import UserError
from prm_gym.evaluation.intervals import Outcome, by_task_type, gain, interval, success


def outcome(shares: list[float]) -> Outcome:
    return {f"g{i}": ("Pick" if i % 2 else "Heat", share) for i, share in enumerate(shares)}


def test_a_gain_is_paired_over_games() -> None:
    """Two policies that differ on one game in four: the interval is that of the differences, not of two rates."""
    worse = outcome([0.0, 1.0, 1.0, 0.0] * 25)
    better = outcome([1.0, 1.0, 1.0, 0.0] * 25)
    found = gain([better], [worse])
    assert found.mean == pytest.approx(0.25)
    half = 1.959963984540054 * np.std([1, 0, 0, 0] * 25, ddof=1) / 10
    assert found.ci95 == pytest.approx((0.25 - half, 0.25 + half))


def test_only_games_that_both_played_count() -> None:
    found = gain([outcome([1.0, 0.0])], [outcome([0.0, 0.0, 1.0])])
    assert (found.mean, found.games) == (0.5, 2)


def test_with_seeds_the_interval_covers_games_and_seeds() -> None:
    """Policies whose skill differs by seed: an interval over games alone would cover far less than 95%."""
    rng = np.random.default_rng(0)
    covered = {"both": 0, "games alone": 0}
    for _ in range(400):
        hardness = rng.normal(0, 0.2, 200)
        skills = 0.5 + rng.normal(0, 0.06, 6)
        seeds = [outcome([float(won) for won in rng.random(200) < np.clip(skill + hardness, 0, 1)]) for skill in skills]
        low, high = success(seeds).ci95
        covered["both"] += low <= 0.5 <= high
        table = np.array([[share for _, share in of.values()] for of in seeds])
        half = 1.96 * table.mean(axis=0).std(ddof=1) / 200**0.5
        covered["games alone"] += abs(table.mean() - 0.5) <= half
    assert covered["both"] / 400 > 0.93
    assert covered["games alone"] < covered["both"] - 40


@pytest.mark.parametrize(
    ("games", "seeds", "both"), [(4.0, 0.6, 0.0), (3.0, 0.8, 0.5), (4.0, 0.2, 0.0), (2.0, 0.5, 0.5)]
)
def test_three_seeds_cover_the_truth(games: float, seeds: float, both: float) -> None:
    """Log-odds of a win with normal effects of the game, the seed and both, of these deviations."""
    rng = np.random.default_rng(1)

    def rate(log_odds: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-log_odds))

    truth = rate(sum(rng.normal(0, deviation, 1_000_000) for deviation in (games, seeds, both))).mean()
    covered = 0
    for _ in range(1000):
        effects = rng.normal(0, games, 134) + rng.normal(0, seeds, (3, 1)) + rng.normal(0, both, (3, 134))
        low, high = success([outcome(list(map(float, row))) for row in rng.random((3, 134)) < rate(effects)]).ci95
        covered += low <= truth <= high
    assert 0.92 < covered / 1000 < 0.98


def test_no_game_in_common_is_refused() -> None:
    with pytest.raises(UserError, match="no game was played by all"):
        gain([{"a": ("Pick", 1.0)}], [{"b": ("Pick", 1.0)}])


def test_one_seed_gives_wilsons_interval() -> None:
    found = success([outcome([1.0] * 8 + [0.0] * 2)])
    assert found.ci95 == pytest.approx((0.4901, 0.9433), abs=1e-4)  # of 8 in 10, by the published formula


@pytest.mark.parametrize("spread", [0.0, 0.08])
def test_the_interval_of_a_share_of_pairs_covers_pairs_and_seeds(spread: float) -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(1000):
        truth = 0.6 + rng.normal(0, spread, 6)
        low, high = interval([float(rng.binomial(270, share) / 270) for share in truth], [270] * 6)
        covered += low <= 0.6 <= high
    assert 0.93 < covered / 1000 < 0.99


def test_task_types_pool_seeds() -> None:
    assert by_task_type([outcome([1.0, 0.0]), outcome([0.0, 0.0])]) == {"Heat": 0.5, "Pick": 0.0}

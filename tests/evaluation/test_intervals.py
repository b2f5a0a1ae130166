"""Intervals of findings, against simulation: a 95% interval covers the truth in about 95 of 100 cases."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from prm_gym.errors import UserError
from prm_gym.evaluation import intervals
from prm_gym.evaluation.intervals import Outcome, by_task_type, gain, interval, success, wilson
from prm_gym.store import EpisodeWriter
from prm_gym.types import Episode, Turn


def outcome(shares: list[float]) -> Outcome:
    return {f"g{i}": ("Pick" if i % 2 else "Heat", share) for i, share in enumerate(shares)}


def test_the_outcome_of_a_game_is_the_share_of_its_episodes_that_won(tmp_path: Path) -> None:
    with EpisodeWriter(tmp_path) as writer:
        for number, (game, won) in enumerate([("g0", True), ("g0", True), ("g0", False), ("g1", False)]):
            turns = [Turn(0, "o", ["look"], action="look", reward=float(won)), Turn(1, "o", [])]
            stop = "won" if won else "step_limit"
            writer.add(Episode(f"e{number}", game, "s", "t", "Pick", "pi_0", 0, 0, stop, turns))
    assert intervals.outcome(tmp_path) == {"g0": ("Pick", 2 / 3), "g1": ("Pick", 0.0)}


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


def test_only_games_that_every_seed_played_count() -> None:
    found = success([outcome([1.0, 0.0]), outcome([0.0, 0.0, 1.0])])
    assert (found.per_seed, found.games) == ([0.5, 0.0], 2)


@pytest.mark.parametrize(("seeds", "t"), [(2, 12.706), (5, 2.776), (10, 2.262), (11, 2.262), (30, 2.262)])
def test_the_deviation_of_seeds_has_the_t_of_their_number_up_to_ten(seeds: int, t: float) -> None:
    """Games that differ by seed alone. The exact quantiles for 11 and 30 seeds, 2.228 and 2.045, are smaller."""
    means = [0.4 + 0.01 * seed for seed in range(seeds)]
    half = t * np.std(means, ddof=1) / seeds**0.5
    low, high = success([outcome([mean] * 3) for mean in means]).ci95
    assert (low, high) == pytest.approx((np.mean(means) - half, np.mean(means) + half))


def test_games_that_all_end_alike_leave_the_doubt_of_their_number() -> None:
    assert success([outcome([1.0] * 10)] * 3).ci95 == success([outcome([1.0] * 10)]).ci95 == wilson(10, 10)


def test_one_game_tells_nothing_of_others() -> None:
    assert success([outcome([share]) for share in (1.0, 0.0, 1.0)]).ci95 == (0.0, 1.0)


def test_an_interval_ends_where_shares_do() -> None:
    nearly = [outcome([1.0] * 24 + [share]) for share in (0.0, 1.0, 1.0)]
    assert success(nearly).ci95[1] == 1.0


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

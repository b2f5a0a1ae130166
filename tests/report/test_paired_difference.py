"""Paired and unpaired differences against published figures and their formulas."""

from __future__ import annotations

import math
import statistics
from typing import Any

import pytest

from prm_gym.evaluation.intervals import wilson
from prm_gym.report import paired_difference
from prm_gym.report.episode_summaries import Played


def entry(wins: int, games: int, played: dict[str, Played] | None = None, **more: Any) -> dict[str, Any]:
    return {
        "split": "valid_unseen",
        "success": wins / games,
        "games": games,
        "ci95": wilson(wins, games),
        "by_task_type": {},
        "played": {0: played} if played else {},
        **more,
    }


def outcomes(won: str) -> dict[str, Played]:
    return {f"game {i}": Played("Pick" if i % 2 else "Heat", float(c), 3.0 + i * int(c)) for i, c in enumerate(won)}


def of(won: str, **more: Any) -> dict[str, Any]:
    return entry(won.count("1"), len(won), outcomes(won), **more)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ((56, 70), (48, 80), (0.0524, 0.3339)),
        ((9, 10), (3, 10), (0.1705, 0.8090)),
        ((5, 56), (0, 29), (-0.0381, 0.1926)),
    ],
)
def test_unpaired_intervals_are_those_that_newcombe_printed(one, other, expected) -> None:
    """Newcombe 1998, Statistics in Medicine 17, Table II, method 10."""
    found = paired_difference.success(entry(*one), entry(*other))
    assert found is not None
    assert found.games is None
    assert (found.low, found.high) == pytest.approx(expected, abs=5e-5)


def test_a_paired_interval_is_the_mean_difference_by_game() -> None:
    one, other = "1101110111", "0100110100"
    differences = [int(a) - int(b) for a, b in zip(one, other, strict=True)]
    half = 1.959964 * statistics.stdev(differences) / math.sqrt(10)
    found = paired_difference.success(of(one), of(other))
    assert found is not None
    assert (found.mean, found.low, found.high) == pytest.approx((0.4, 0.4 - half, 0.4 + half))
    assert (found.games, found.differ) == (10, 4)


def test_only_games_that_both_played_count() -> None:
    one, other = of("1111"), of("0000000")
    found = paired_difference.success(one, other)
    assert found is not None
    assert (found.games, found.mean) == (4, 1.0)


def test_one_task_type_pairs_its_own_games() -> None:
    found = paired_difference.success(of("1010"), of("0000"), "Heat")
    assert found is not None
    assert (found.games, found.mean) == (2, 1.0)


def test_few_games_that_differ_are_noise_whatever_the_interval() -> None:
    """A sign test of five wins to none has p = 0.0625, of six 0.031."""
    five, six = (paired_difference.success(of("1" * n), of("0" * n)) for n in (5, 6))
    assert five is not None
    assert six is not None
    assert five.low > 0
    assert (five.sign, six.sign) == (0, 1)


def test_actions_are_compared_in_pairs_alone() -> None:
    found = paired_difference.actions(of("0011"), of("0000"))
    assert found is not None
    assert found.mean == pytest.approx((2 + 3) / 4)
    assert paired_difference.actions(entry(1, 4), entry(2, 4)) is None


def test_games_of_other_runs_are_paired_only_if_they_are_the_same() -> None:
    a, b, c = (of("11", run=run, games_fingerprint=games) for run, games in (("r", "x"), ("s", "x"), ("s", "y")))
    assert [d and d.games for d in (paired_difference.success(a, b), paired_difference.success(a, c))] == [2, None]
    assert paired_difference.actions(a, {**of("11", run="t"), "games_fingerprint": None}) is None

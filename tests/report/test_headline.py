"""The gain in the first lines of the page, against the episodes."""

from __future__ import annotations

import math
import statistics

import pytest
import report_world
from report_world import make_run, play

from prm_gym.report.gather import gather
from prm_gym.report.headline import headline, points
from prm_gym.report.paired_difference import Difference


def wins(policy: str, skill: float, games: int) -> list[int]:
    return [play(policy, game, skill).won for game in range(games)]


def test_the_gain_is_that_of_the_games_that_both_played(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(report_world, "GAMES", 40)
    found = headline(gather(make_run(tmp_path, iterations=3), "a"))
    assert found is not None
    first, last = found["figures"]
    differences = [b - a for a, b in zip(wins("pi_0", 0.08, 40), wins("pi_3", 0.32, 40), strict=True)]
    mean, half = statistics.mean(differences), 1.959964 * statistics.stdev(differences) / math.sqrt(40)
    low, high = 100 * (mean - half), 100 * (mean + half)
    assert first["gain"] is None
    assert sum(map(bool, differences)) >= 6
    assert last["gain"]["points"] == f"{100 * mean:+.1f} points (95%: {low:.1f} to {high:.1f})"
    assert last["gain"]["over"] == "over π₀; 40 games, paired"
    assert last["gain"]["sign"] == (low > 0)


def test_best_of_n_gains_over_the_same_policy_alone(tmp_path) -> None:
    found = headline(gather(make_run(tmp_path, iterations=2, best_of=(2, 4)), "a"))
    assert found is not None
    assert [figure["name"] for figure in found["figures"]] == ["π₀", "π₂", "π₂, best of 4 by Q₁"]
    assert found["figures"][2]["gain"]["over"].startswith("over π₂;")


@pytest.mark.parametrize("field", ["games_fingerprint", "max_episode_steps"])
def test_nothing_is_gained_over_other_games_or_another_step_limit(tmp_path, field) -> None:
    run = gather(make_run(tmp_path), "a")

    def gain(*values: object) -> object:
        found = headline({**run, "results": [{**e, field: v} for e, v in zip(run["results"], values, strict=True)]})
        assert found is not None
        return found["figures"][-1]["gain"]

    assert gain(16, 16)
    assert gain(16, None)
    assert not gain(16, 30)


@pytest.mark.parametrize(
    ("difference", "said"),
    [
        (Difference(0.125, 0.041, 0.209, 100, 20), "+12.5 points (95%: 4.1 to 20.9)"),
        (Difference(-0.125, -0.25, 0.0), "\N{MINUS SIGN}12.5 points (95%: \N{MINUS SIGN}25.0 to 0.0)"),
        (Difference(0.0, 0.0, 0.0, 3, 0), "+0.0 points"),
    ],
)
def test_points_are_written_with_their_interval_if_there_is_one(difference, said) -> None:
    assert points(difference) == said

"""Labels of environments with intermediate rewards, ends without a win, and unknown commands."""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from datasets import load_dataset
from test_general_environments import TASKS, Coins, Heads, collected

from prm_gym.errors import UserError
from prm_gym.labels import monte_carlo, value
from prm_gym.store import EpisodeWriter, read_episodes
from prm_gym.types import Episode

GAMMA = 0.9


def rows(folder: Path) -> list[dict[str, Any]]:
    return [row for split in load_dataset(str(folder)).values() for row in split]


def returns(episode: Episode) -> list[float]:
    """G_t by the recursion G_t = r_t + gamma G_{t+1}."""
    found = [0.0]
    for turn in reversed(episode.turns[:-1]):
        assert turn.reward is not None
        found.append(turn.reward + GAMMA * found[-1])
    return found[:0:-1]


@pytest.mark.parametrize("tell", [True, False], ids=["commands known", "unknown"])
def test_targets_are_the_mean_returns_of_all_visits(tmp_path: Path, tell: bool) -> None:
    episodes = collected(tmp_path / "store", partial(Coins, tell=tell))
    visited: dict[tuple[bytes, str], list[float]] = defaultdict(list)
    states: dict[bytes, list[float]] = defaultdict(list)
    for episode in episodes:
        for turn, g in zip(episode.turns, returns(episode), strict=False):
            visited[turn.state_key, turn.action].append(g)
            states[turn.state_key].append(g)
    monte_carlo.label([tmp_path / "store"], tmp_path / "q", gamma=GAMMA, prompt="general", valid_only=True)
    labelled = rows(tmp_path / "q")
    assert len(labelled) == len(visited)
    for row in labelled:
        action = row["completion"][0]["content"].partition("ACTION: ")[2]
        of = visited[row["state_key"], action]
        assert (row["target"], row["count"]) == (pytest.approx(sum(of) / len(of), abs=1e-7), len(of))
        assert ("Available actions" in row["prompt"][1]["content"]) is tell
    value.label([tmp_path / "store"], tmp_path / "v", gamma=GAMMA, prompt="general")
    for row in rows(tmp_path / "v"):
        of = states[row["state_key"]]
        assert row["target"] == pytest.approx(sum(of) / len(of), abs=1e-7)


def test_rewards_that_make_one_but_for_their_precision_are_no_error(tmp_path: Path) -> None:
    collected(tmp_path / "store", partial(Heads, tell=False))
    monte_carlo.label([tmp_path / "store"], tmp_path / "q", gamma=1.0, prompt="general")
    assert {row["target"] for row in rows(tmp_path / "q") if row["turn"] == 0} == {1.0}


def test_rewards_over_one_are_refused(tmp_path: Path) -> None:
    collected(tmp_path / "store", Coins)
    with EpisodeWriter(tmp_path / "over") as writer:
        for episode in read_episodes(tmp_path / "store"):
            episode.turns[0].reward = 1.1
            writer.add(episode)
    with pytest.raises(UserError, match=r"rewards from .* in sum"):
        monte_carlo.label([tmp_path / "over"], tmp_path / "q", prompt="general")


def test_a_prompt_that_lists_commands_says_that_they_are_unknown(tmp_path: Path) -> None:
    collected(tmp_path / "store", partial(Coins, tell=False))
    with pytest.raises(UserError, match=r"full lists the admissible commands, .* general"):
        monte_carlo.label([tmp_path / "store"], tmp_path / "q", prompt="full")


def test_a_loss_of_an_environment_is_terminal_in_the_view_of_turns(tmp_path: Path) -> None:
    from prm_gym.labels.sql_views import Rollouts

    episodes = collected(tmp_path / "store", Coins, max_episode_steps=3)
    (tmp_path / "work").mkdir()
    with Rollouts([tmp_path / "store"], tmp_path / "work") as source:
        (ended,) = source.one("SELECT count(*) FROM turns WHERE terminated")
    assert ended == sum(turn.terminated for episode in episodes for turn in episode.turns)
    assert 0 < ended < len(episodes) == 4 * len(TASKS)

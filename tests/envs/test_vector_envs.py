"""`gymnasium.make_vec` with its defaults: every mode gives the same as single environments."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import gymnasium
import pytest
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import create_shared_memory, read_from_shared_memory, write_to_shared_memory
from gymnasium.wrappers.vector import RecordEpisodeStatistics

pytest.importorskip("alfworld")

from kitchen import WINNING, write_kitchen

import prm_gym.envs
from prm_gym.envs.games import Game
from prm_gym.envs.text_space import ObservationText
from prm_gym.errors import UserError

MODES = ["sync", "async", None]


@pytest.fixture(scope="session")
def kitchen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_kitchen(tmp_path_factory.mktemp("kitchen"))


def make(games: list[Game], mode: str | None, num_envs: int = 3, **options: Any) -> gymnasium.vector.VectorEnv:
    return gymnasium.make_vec(prm_gym.envs.ALFWORLD, num_envs, mode, game_files=games, **options)


def alone(games: list[Game], seed: int, actions: list[str], limit: int) -> list[tuple[Any, ...]]:
    """What one environment shows, reset in the step after its end."""
    env = gymnasium.make(prm_gym.envs.ALFWORLD, game_files=games, max_episode_steps=limit)
    observation, info = env.reset(seed=seed)
    seen: list[tuple[Any, ...]] = [(observation, 0.0, False, False, info)]
    for action in actions:
        if seen[-1][2] or seen[-1][3]:
            observation, info = env.reset()
            seen.append((observation, 0.0, False, False, info))
        else:
            seen.append(env.step(action))
    return seen


@pytest.mark.parametrize("mode", MODES)
def test_each_place_shows_what_its_environment_shows_alone(small_games: list[Game], mode: str | None) -> None:
    scripts = [["look", "inventory", "look", "go to nowhere", "look"], ["help"] * 5, ["inventory"] * 5]
    expected = [alone(small_games, 7 + i, script, 3) for i, script in enumerate(scripts)]
    envs = make(small_games, mode, max_episode_steps=3)
    try:
        observations, infos = envs.reset(seed=7)
        kept = observations
        for step in range(6):
            if step:
                actions = tuple(script[step - 1] for script in scripts)
                observations, rewards, terminated, truncated, infos = envs.step(actions)
                assert rewards.tolist() == [seen[step][1] for seen in expected]
                assert terminated.tolist() == [seen[step][2] for seen in expected]
                assert truncated.tolist() == [seen[step][3] for seen in expected]
            assert observations in envs.observation_space
            assert list(observations) == [seen[step][0] for seen in expected]
            for name in ("task", "game_id", "won", "admissible_commands"):
                assert list(infos[name]) == [seen[step][4][name] for seen in expected], name
        assert list(kept) == [seen[0][0] for seen in expected]  # not overwritten by later steps
    finally:
        envs.close()


@pytest.mark.parametrize("mode", MODES)
def test_a_win_is_rewarded_and_the_statistics_report_it(kitchen: Path, mode: str | None) -> None:
    envs = RecordEpisodeStatistics(make([kitchen], mode, 2, max_episode_steps=5))
    try:
        envs.reset(seed=0)
        for command in WINNING:
            _, rewards, terminated, truncated, infos = envs.step((command, "look"))
        assert (rewards.tolist(), terminated.tolist(), truncated.tolist()) == ([1, 0], [True, False], [False, True])
        assert infos["episode"]["l"].tolist() == [5, 5]
        assert infos["episode"]["r"].tolist() == [1, 0]
    finally:
        envs.close()


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_reset_in_the_same_step_keeps_the_last_observation(kitchen: Path, mode: str) -> None:
    again = {"autoreset_mode": AutoresetMode.SAME_STEP}
    envs = make([kitchen], mode, 2, max_episode_steps=1, vector_kwargs=again)
    try:
        first, _ = envs.reset(seed=0)
        observations, _, _, truncated, infos = envs.step(("inventory", "nonsense"))
        assert truncated.all()
        assert list(infos["final_obs"]) == ["You are not carrying anything.", "Nothing happens."]
        assert list(observations) == list(first)
    finally:
        envs.close()


def test_the_processes_may_be_spawned_and_the_memory_shared_or_not(kitchen: Path) -> None:
    expected = gymnasium.make(prm_gym.envs.ALFWORLD, game_files=[kitchen]).reset(seed=0)[0]
    for options in ({"context": "spawn"}, {"shared_memory": False}, {"copy": False}):
        envs = make([kitchen], "async", 1, vector_kwargs=options)
        try:
            assert list(envs.reset(seed=0)[0]) == [expected], options
            assert list(envs.step(("inventory",))[0]) == ["You are not carrying anything."], options
        finally:
            envs.close()


@pytest.mark.filterwarnings("ignore:.*ERROR")  # gymnasium tells it once more, with the traceback
def test_an_error_in_a_process_says_what_it_says_alone(kitchen: Path) -> None:
    envs = make([kitchen], "async", 1)
    with pytest.raises(UserError, match="nowhere: cannot read the game file"):
        envs.reset(options={"game_file": "nowhere"})


@pytest.mark.parametrize("text", ["", "Æ “quoted”", "😀" * 16, "half \ud83d"])
def test_the_shared_memory_carries_any_text(text: str) -> None:
    space = ObservationText(16, min_length=0)
    memory = create_shared_memory(space, n=2, ctx=multiprocessing)
    view = read_from_shared_memory(space, memory, n=2)
    write_to_shared_memory(space, 1, "longer, before", memory)
    write_to_shared_memory(space, 1, text, memory)
    assert list(view) == ["", text]
    with pytest.raises(ValueError, match="17 characters"):
        write_to_shared_memory(space, 0, "x" * 17, memory)

"""`prm_gym/ALFWorld-v0` keeps the environment's contract, with either engine."""

from __future__ import annotations

import json
import pickle
import warnings
from pathlib import Path

import gymnasium
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from gymnasium.wrappers import RecordEpisodeStatistics

pytest.importorskip("alfworld")

from kitchen import WINNING, write_kitchen

import prm_gym.envs
from prm_gym.envs.alfworld import ALFWorldEnv
from prm_gym.envs.games import Game
from prm_gym.errors import UserError

ENGINES = ("exact", "stock")


@pytest.fixture(scope="session")
def kitchen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_kitchen(tmp_path_factory.mktemp("kitchen"))


def make(*files: Path | Game, **arguments: object) -> gymnasium.Env[str, str]:
    return gymnasium.make(prm_gym.envs.ALFWORLD, game_files=list(files), **arguments)


def test_gymnasium_s_own_checks(kitchen: Path) -> None:
    env = make(kitchen, max_episode_steps=30)
    check_env(env.unwrapped)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*is different from the unwrapped version.*")
        check_env(env)


def test_gymnasium_s_own_checks_of_rendering(kitchen: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", ".*is different from the unwrapped version.*")
        check_env(make(kitchen, render_mode="ansi"))


@pytest.mark.parametrize("engine", ENGINES)
def test_ansi_renders_the_last_command_and_what_it_showed(kitchen: Path, engine: str) -> None:
    env = make(kitchen, engine=engine, render_mode="ansi")
    start, _ = env.reset(seed=0)
    assert env.render() == start
    state = env.unwrapped.snapshot()
    seen = env.step("go to desk 1")[0]
    assert env.render() == f"> go to desk 1\n{seen}"
    assert env.unwrapped.fork().render() == env.render()
    env.unwrapped.restore(state)
    assert env.render() == start
    env.step("fly")
    assert env.render() == "> fly\nNothing happens."
    env.reset(seed=0)
    assert env.render() == start


def test_nothing_is_rendered_without_a_mode_or_an_episode(kitchen: Path) -> None:
    env = ALFWorldEnv([kitchen])
    env.reset()
    assert env.render() is None
    with pytest.raises(ResetNeeded):
        ALFWorldEnv([kitchen], render_mode="ansi").render()


@pytest.mark.parametrize("engine", ENGINES)
def test_reset_shows_stock_s_text_and_the_whole_info(kitchen: Path, engine: str) -> None:
    observation, info = make(kitchen, engine=engine).reset(seed=0)
    assert observation == (
        "-= Welcome to TextWorld, ALFRED! =-\n\nYou are in the middle of a room. Looking quickly around you, you see a"
        " cabinet 2, a cabinet 1, a countertop 1, a desk 1, a fridge 1, a microwave 1, and a sinkbasin 1.\n\nYour task"
        " is to: put a clean mug in countertop."
    )
    commands = [f"go to {place} 1" for place in ("cabinet", "countertop", "desk", "fridge", "microwave", "sinkbasin")]
    assert info == {
        "task": "put a clean mug in countertop",
        "task_type": "pick_clean_then_place_in_recep",
        "game_file": str(kitchen),
        "game_id": "train/pick_clean_then_place_in_recep-Mug-None-CounterTop-1/trial_T1",
        "admissible_commands": sorted([*commands, "go to cabinet 2", "help", "inventory", "look"]),
        "won": False,
    }


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("limit", [None, 5, 6])
def test_the_win_is_rewarded_terminates_and_is_never_truncated(kitchen: Path, engine: str, limit: int | None) -> None:
    env = make(kitchen, engine=engine, max_episode_steps=limit)
    env.reset(seed=0)
    outcomes = [env.step(command)[1:4] for command in WINNING]
    assert outcomes == [(0.0, False, False)] * 4 + [(1.0, True, False)]
    with pytest.raises(ResetNeeded):
        env.step("look")


def test_the_step_limit_truncates_and_counts_what_is_refused(kitchen: Path) -> None:
    env = make(kitchen, max_episode_steps=3)
    for _ in range(2):
        env.reset(seed=0)
        outcomes = [env.step(command)[1:4] for command in ("nonsense", "look", "")]
        assert outcomes == [(0.0, False, False)] * 2 + [(0.0, False, True)]
        with pytest.raises(ResetNeeded):
            env.step("look")


def test_the_registered_limit_is_the_paper_s(kitchen: Path) -> None:
    env = RecordEpisodeStatistics(make(kitchen))
    assert env.spec is not None
    assert env.spec.max_episode_steps == 30
    env.reset(seed=0)
    for step in range(1, 31):
        *_, truncated, info = env.step("look")
        assert truncated == (step == 30)
    assert info["episode"]["l"] == 30


@pytest.mark.parametrize("limitless", ["make", "class"])
def test_there_may_be_no_limit(kitchen: Path, limitless: str) -> None:
    env = make(kitchen, max_episode_steps=-1) if limitless == "make" else ALFWorldEnv([kitchen], max_episode_steps=None)
    env.reset(seed=0)
    assert not any(env.step("look")[3] for _ in range(40))


@pytest.mark.parametrize("action", [None, 3, ["look"], b"look"])
def test_an_action_that_is_no_text_is_refused_and_costs_nothing(kitchen: Path, action: object) -> None:
    env = make(kitchen, max_episode_steps=1)
    env.reset(seed=0)
    with pytest.raises(UserError, match=r"action: got .*; give one command as a str"):
        env.step(action)
    assert env.step("look")[3] is True


@pytest.mark.parametrize("snapshot", [None, {}, "here"])
def test_what_is_no_snapshot_is_refused(kitchen: Path, snapshot: object) -> None:
    env = make(kitchen).unwrapped
    env.reset(seed=0)
    with pytest.raises(UserError, match="snapshot: got "):
        env.restore(snapshot)


def test_without_game_files_the_train_games_of_the_environment_variable_are_played(
    kitchen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALFWORLD_DATA", str(kitchen.parents[3]))
    assert gymnasium.make(prm_gym.envs.ALFWORLD).reset(seed=0)[1]["game_file"] == str(kitchen)
    monkeypatch.delenv("ALFWORLD_DATA")
    with pytest.raises(UserError, match="ALFWORLD_DATA is not set"):
        gymnasium.make(prm_gym.envs.ALFWORLD)


def test_the_limit_is_kept_by_the_spec_and_by_the_class(kitchen: Path) -> None:
    env = make(kitchen, max_episode_steps=3)
    assert env.spec is not None
    assert env.spec.max_episode_steps == 3
    remade = gymnasium.make(env.spec)
    assert remade.spec == env.spec
    direct = ALFWorldEnv([kitchen], max_episode_steps=3)
    for other in (remade.unwrapped, direct):
        other.reset(seed=0)
        assert [other.step("look")[3] for _ in range(3)] == [False, False, True]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_snapshot_returns_to_state_step_count_and_game(kitchen: Path, engine: str, small_games: list[Game]) -> None:
    env = make(kitchen, small_games[0], engine=engine, max_episode_steps=5)
    env.reset(seed=0, options={"game_file": kitchen})
    for command in WINNING[:4]:
        seen = env.step(command)
    snapshot = env.unwrapped.snapshot()
    assert len(pickle.dumps(snapshot)) < 1000
    assert env.step("look")[3] is True  # cut off
    env.reset(options={"game_file": small_games[0]})
    observation, info = env.unwrapped.restore(json.loads(json.dumps(snapshot)))
    assert (observation, info) == (seen[0], seen[4])
    assert env.step(WINNING[4])[1:4] == (1.0, True, False)
    won = env.unwrapped.snapshot()
    env.unwrapped.restore(snapshot)
    assert env.step("look")[3] is True
    env.unwrapped.restore(won)
    with pytest.raises(ResetNeeded):
        env.step("look")


def test_a_snapshot_of_a_game_that_is_not_there_is_refused(kitchen: Path, small_games: list[Game]) -> None:
    env = make(kitchen)
    env.reset(seed=0)
    with pytest.raises(UserError, match=r"no game .* among game_files"):
        ALFWorldEnv(small_games).restore(env.unwrapped.snapshot())
    with pytest.raises(ResetNeeded):
        ALFWorldEnv(small_games).snapshot()


def test_a_fork_is_independent_and_draws_the_same_games(small_games: list[Game]) -> None:
    env = make(*small_games, max_episode_steps=9).unwrapped
    env.reset(seed=4)
    env.step("look")
    twin = env.fork()
    assert twin.snapshot() == env.snapshot()
    twin.step("inventory")
    assert twin.snapshot() != env.snapshot()
    assert [twin.reset()[1]["game_id"] for _ in range(5)] == [env.reset()[1]["game_id"] for _ in range(5)]


def test_seeds_choose_games_alike(small_games: list[Game]) -> None:
    def drawn(seed: int) -> list[str]:
        env = make(*small_games)
        first = env.reset(seed=seed)[1]["game_id"]
        return [first, *(env.reset()[1]["game_id"] for _ in range(20))]

    assert drawn(1) == drawn(1) != drawn(2)
    assert set(drawn(1)) == {game.game_id for game in small_games}


def test_info_belongs_to_the_caller(kitchen: Path) -> None:
    env = make(kitchen)
    _, info = env.reset(seed=0)
    info["admissible_commands"].clear()
    info.clear()
    assert "look" in env.step("look")[4]["admissible_commands"]


def test_a_vector_of_environments_shares_games(small_games: list[Game]) -> None:
    envs = gymnasium.make_vec(
        prm_gym.envs.ALFWORLD, num_envs=8, vectorization_mode="sync", game_files=small_games, max_episode_steps=4
    )
    observations, infos = envs.reset(seed=3)
    assert len(observations) == 8
    for turn in range(1, 5):
        observations, rewards, terminated, truncated, infos = envs.step(["look"] * 8)
        assert list(truncated) == [turn == 4] * 8
    assert not terminated.any()
    assert not rewards.any()
    assert all("look" in commands for commands in infos["admissible_commands"])


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"game_files": []}, "game_files"),
        ({"game_files": "game.tw-pddl"}, "game_files"),
        ({"game_files": ["x"], "engine": "fast"}, "no engine 'fast'"),
        ({"game_files": ["x"], "max_episode_steps": 0}, "max_episode_steps"),
        ({"game_files": ["x"], "render_mode": "human"}, "no mode 'human'"),
    ],
)
def test_senseless_arguments_are_refused(arguments: dict[str, object], problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        ALFWorldEnv(**arguments)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_missing_game_or_an_unknown_option_is_named(tmp_path: Path, engine: str, kitchen: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere.*cannot read the game file"):
        ALFWorldEnv([tmp_path / "nowhere"], engine=engine).reset()
    with pytest.raises(UserError, match="options: seed_: unknown"):
        ALFWorldEnv([kitchen], engine=engine).reset(options={"seed_": 1})
    with pytest.raises(ResetNeeded):
        ALFWorldEnv([kitchen], engine=engine).step("look")

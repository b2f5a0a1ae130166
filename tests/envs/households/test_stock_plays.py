"""Generated games in stock alfworld: it loads them, and their claimed properties hold there."""

from __future__ import annotations

import copy
import itertools
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prm_gym.envs.games import TASK_TYPES
from prm_gym.envs.households.catalog import catalog
from prm_gym.envs.households.household import Game
from prm_gym.envs.households.plans import _Room
from prm_gym.envs.households.writer import games

Load = Callable[[Path], Any]


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("game.tw-pddl"))


def of_type(folder: Path, task_type: str) -> Path:
    return next(path for path in files(folder) if path.parts[-3].startswith(f"{task_type}-"))


def assert_walkthrough_wins(path: Path, env: Any) -> None:
    state = env.reset()
    assert not state.won
    for command in json.loads(path.read_text())["walkthrough"]:
        assert not state.won
        assert command in state.admissible_commands
        state, _, _ = env.step(command)
    assert state.won


def test_alfred_tw_env_collects_every_game(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from alfworld.agents.environment.alfred_tw_env import AlfredTWEnv

    config = {
        "env": {"goal_desc_human_anns_prob": 0.0, "task_types": [1, 2, 3, 4, 5, 6], "domain_randomization": False},
        "dataset": {
            "data_path": str(small / "train"),
            "eval_id_data_path": str(small / "valid_seen"),
            "eval_ood_data_path": str(small / "valid_unseen"),
            "num_train_games": -1,
            "num_eval_games": -1,
        },
    }
    found = {mode: AlfredTWEnv(config, mode).num_games for mode in ("train", "eval_in_distribution")}
    found["eval_out_of_distribution"] = AlfredTWEnv(config, "eval_out_of_distribution").num_games
    assert found == {"train": 12, "eval_in_distribution": 6, "eval_out_of_distribution": 6}


@pytest.mark.parametrize("task_type", TASK_TYPES)
def test_walkthrough_wins_a_small_game_in_stock(task_type: str, small: Path, stock: Load) -> None:
    path = of_type(small / "train", task_type)
    assert_walkthrough_wins(path, stock(path))


def test_walkthrough_wins_a_full_game_in_stock(full: Path, stock: Load) -> None:
    path = of_type(full / "train", "look_at_obj_in_light")
    assert_walkthrough_wins(path, stock(path))


@pytest.mark.slow
def test_walkthrough_wins_every_game_in_stock(small: Path, full: Path, stock: Load) -> None:
    for path in files(small) + files(full):
        assert_walkthrough_wins(path, stock(path))


def test_first_observation_lists_the_receptacles_and_shows_no_object(small: Path, stock: Load) -> None:
    game = next(game for _, game in games("small", {"train": 1}, 3))
    state = stock(next(small.rglob(f"{game.folder}/game.tw-pddl"))).reset()
    room, task = state.feedback.split("Your task is to: ")
    assert task.strip() == f"{game.sentence}."
    assert all(f"a {game.names[place.id]}" in room for place in game.receptacles)
    assert not any(f" {game.names[thing.id]}" in room for thing in game.things)


@pytest.mark.parametrize("index", [1, 3])  # look_at_obj_in_light, and heating: all verbs but clean and cool
def test_the_model_behind_the_proof_admits_what_stock_admits(index: int, small: Path, stock: Load) -> None:
    """Over a random walk, every command of the verbs it covers is admissible in both or in neither."""
    game = [game for _, game in games("small", {"train": 12}, 3)][index]
    env = stock(next(small.rglob(f"{game.folder}/game.tw-pddl")))
    room, state, rng = _Room(catalog(), game), env.reset(), random.Random(0)
    commands = candidates(game)
    for _ in range(10):
        admissible = set(state.admissible_commands)
        assert {command for command in commands if copy.deepcopy(room).do(command)} == admissible & commands
        # Go on with something that changes hands or doors where there is such a thing.
        likely = [c for c in admissible & commands if not c.startswith("go")] or admissible & commands
        command = rng.choice(sorted(likely if rng.random() < 0.6 else admissible & commands))
        state, _, _ = env.step(command)
        room.do(command)
        assert room.won() == state.won


def candidates(game: Game) -> set[str]:
    places = [game.names[place.id] for place in game.receptacles]
    things = [game.names[thing.id] for thing in game.things]
    both = list(itertools.product(things, places))
    return (
        {f"{verb} {place}" for verb in ("go to", "open") for place in places}
        | {f"take {thing} from {place}" for thing, place in both}
        | {f"move {thing} to {place}" for thing, place in both}
        | {f"{verb} {thing} with {place}" for verb in ("clean", "heat", "cool") for thing, place in both}
        | {f"use {thing}" for thing in things}
    )

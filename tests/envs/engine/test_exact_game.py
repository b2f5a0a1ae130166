"""Snapshots, forks, threads, and memory limits."""

from __future__ import annotations

import json
import pickle
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("alfworld")

from kitchen import write_kitchen
from walks import assert_same, choose

from prm_gym.envs import engine
from prm_gym.envs.engine.exact_game import ExactGame
from prm_gym.envs.engine_interface import Play
from prm_gym.envs.games import Game
from prm_gym.envs.stock import StockGame
from prm_gym.errors import UserError


def wander(play: Play, seed: int, steps: int) -> list[str]:
    """All that a random walk shows."""
    rng = random.Random(seed)
    shown = []
    for _ in range(steps):
        shown.append(play.step(choose(rng, play.admissible_commands)))
        shown.extend(play.admissible_commands)
    return shown


def test_a_snapshot_is_small_plain_and_exact(full_games: list[Game]) -> None:
    game = engine.load(full_games[0])
    play = game.start()
    for turn in range(60):
        snapshot = play.snapshot()
        assert len(json.dumps(snapshot)) < 1000
        assert len(pickle.dumps(snapshot)) < 1000
        restored = game.restore(json.loads(json.dumps(snapshot)))
        assert_same(play, restored, f"turn {turn}")
        assert wander(restored, turn, 3) == wander(play.fork(), turn, 3)
        wander(play, turn, 10)


def test_a_snapshot_keeps_the_history(tmp_path: Path) -> None:
    """`look` tells what was taken from one of two receptacles at a place: the same state, another history."""
    game = engine.load(write_kitchen(tmp_path))
    play = game.start()
    play.step("go to countertop 1")
    untouched = play.snapshot()
    play.step("take apple 1 from countertop 1")
    play.step("move apple 1 to sinkbasin 1")
    play.step("take apple 1 from sinkbasin 1")
    play.step("move apple 1 to countertop 1")
    touched = play.snapshot()
    assert game.restore(untouched).step("look").endswith("Next to it, you see nothing.")
    assert game.restore(touched).step("look").endswith("Next to it, you see a apple 1.")


def test_a_snapshot_is_valid_in_another_process(tmp_path: Path) -> None:
    path = write_kitchen(tmp_path)
    play = engine.load(path).start()
    wander(play, 3, 30)
    code = (
        "import json, sys; from prm_gym.envs import engine\n"
        "play = engine.load(sys.argv[1]).restore(json.loads(sys.argv[2]))\n"
        "print(json.dumps([play.observation, play.admissible_commands, play.step('look')]))"
    )
    arguments = [sys.executable, "-c", code, str(path), json.dumps(play.snapshot())]
    told = json.loads(subprocess.run(arguments, capture_output=True, text=True, check=True).stdout)
    assert told == [play.observation, list(play.admissible_commands), play.step("look")]


def test_a_win_can_be_undone_and_restored(tmp_path: Path) -> None:
    game = engine.load(write_kitchen(tmp_path))
    play = game.start()
    for command in ("go to desk 1", "take mug 2 from desk 1", "go to sinkbasin 1", "clean mug 2 with sinkbasin 1"):
        play.step(command)
    before = play.snapshot()
    play.step("move mug 2 to countertop 1")
    after = play.snapshot()
    play.step("take mug 2 from countertop 1")
    assert (game.restore(before).won, game.restore(after).won, play.won) == (False, True, False)


def test_a_fork_goes_its_own_way(tmp_path: Path) -> None:
    play = engine.load(write_kitchen(tmp_path)).start()
    play.step("go to desk 1")
    twin = play.fork()
    twin.step("take mug 2 from desk 1")
    assert "take mug 2 from desk 1" in play.admissible_commands
    assert "take mug 2 from desk 1" not in twin.admissible_commands


@pytest.mark.parametrize("kind", [ExactGame, StockGame])
def test_snapshots_of_others_are_refused(tmp_path: Path, fresh_engine: None, kind: type) -> None:
    here = write_kitchen(tmp_path / "here")
    there = write_kitchen(tmp_path / "there", grammar=lambda text: text.replace("clean mug", "mug"))
    game = StockGame(here) if kind is StockGame else engine.load(here)
    other = StockGame(there) if kind is StockGame else engine.load(there)
    with pytest.raises(UserError, match="of another game"):
        game.restore(other.start().snapshot())
    good = game.start().snapshot()
    for state in ("", "zzz", good["state"][:-3], "é"):
        with pytest.raises(UserError, match="damaged"):
            game.restore({**good, "state": state})


def test_stock_snapshots_repeat_what_had_an_effect(tmp_path: Path) -> None:
    game = StockGame(write_kitchen(tmp_path))
    play = game.start()
    for command in ("go to desk 1", "nonsense", "take mug 2 from desk 1", "nonsense"):
        play.step(command)
        assert_same(play, game.restore(json.loads(json.dumps(play.snapshot()))), command)
    assert len(json.dumps(play.snapshot())) < 1000


def test_threads_share_a_game(small_games: list[Game], fresh_engine: None) -> None:
    """Eight threads walk one graph that forgets all the time; each sees what it would have seen alone."""
    alone = [wander(engine.load(small_games[0]).start(), seed, 80) for seed in range(8)]
    engine.set_limits(states=20)
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda seed: wander(engine.load(small_games[0]).start(), seed, 80), range(8)))
    assert together == alone


def test_states_are_bounded_and_live_plays_go_on(small_games: list[Game], fresh_engine: None) -> None:
    engine.set_limits(states=30)
    game = engine.load(small_games[0])
    assert isinstance(game, ExactGame)
    plays = [game.start() for _ in range(10)]
    for turn in range(50):
        for number, play in enumerate(plays):
            wander(play, 100 * number + turn, 1)
            assert game.graph.states <= 30


def test_games_are_bounded_and_the_last_used_stay(small_games: list[Game], fresh_engine: None) -> None:
    engine.set_limits(games=2)
    first, second = engine.load(small_games[0]), engine.load(small_games[1])
    assert engine.load(small_games[0]) is first
    play = second.start()
    engine.load(small_games[2])  # lets go of the second, used least recently
    assert engine.load(small_games[0]) is first
    assert engine.load(small_games[1]) is not second
    assert play.step("help").startswith("Available commands")


@pytest.mark.parametrize("limits", [{"games": 0}, {"states": 0}])
def test_senseless_limits_are_refused(limits: dict[str, int]) -> None:
    with pytest.raises(UserError, match="at least 1"):
        engine.set_limits(**limits)

"""The exact engine against stock alfworld: the quick tests. The long ones are in `tests/envs/test_exact_long.py`."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("alfworld")

from kitchen import GOAL, write_kitchen
from walks import INVALID, assert_same, follow

from prm_gym.envs import engine
from prm_gym.envs.engine.exact_game import ExactGame
from prm_gym.envs.engine_interface import Play
from prm_gym.envs.games import Game
from prm_gym.envs.stock import StockGame


def both(path: Path | Game) -> tuple[Play, Play]:
    """A play of stock and one of the exact engine, at the beginning of one game."""
    game = engine.load(path)
    assert isinstance(game, ExactGame)
    stock, exact = StockGame(path).start(), game.start()
    assert_same(stock, exact, "start")
    return stock, exact


@pytest.mark.parametrize("number", range(6))
def test_a_mixed_walk_in_a_small_game_of_each_task_type(small_games: list[Game], number: int) -> None:
    plan = json.loads(small_games[number].path.read_bytes())["walkthrough"]
    stock, exact = both(small_games[number])
    for command in follow(random.Random(number), plan, stock, 25):
        stock.step(command)
        exact.step(command)
        assert_same(stock, exact, command)


def test_a_game_of_real_size(full_games: list[Game]) -> None:
    stock, exact = both(full_games[0])
    for command in follow(random.Random(0), json.loads(full_games[0].path.read_bytes())["walkthrough"], stock, 12):
        stock.step(command)
        exact.step(command)
        assert_same(stock, exact, command)


# A command with "!" is one that the game must refuse.
# Two receptacles share a place, so what lies "next to" one depends on what was ever taken from it.
SHARED_PLACE = """
go to countertop 1; look; take butterknife 1 from countertop 1; look; slice apple 1 with butterknife 1; look
move butterknife 1 to sinkbasin 1; look; take butterknife 1 from sinkbasin 1; look; move butterknife 1 to countertop 1
look; take apple 1 from countertop 1; examine apple 1; inventory; clean apple 1 with sinkbasin 1; examine apple 1; look
move apple 1 to countertop 1; look; go to desk 1; look; go to sinkbasin 1; look
"""
CHANGES = """
go to countertop 1; take apple 1 from countertop 1; go to microwave 1; heat apple 1 with microwave 1; examine apple 1
open microwave 1; !take apple 1 from fridge 1; heat apple 1 with microwave 1; go to fridge 1
cool apple 1 with fridge 1; examine apple 1; open fridge 1; move apple 1 to fridge 1
close fridge 1; examine fridge 1; open fridge 1; take apple 1 from fridge 1
go to microwave 1; heat apple 1 with microwave 1; examine apple 1; close microwave 1; !move apple 1 to microwave 1
"""
LAMP = """
go to desk 1; use desklamp 1; use desklamp 1; look; take mug 2 from desk 1; use desklamp 1; examine mug 2; help
"""
WIN_AND_ON = """
go to desk 1; take mug 2 from desk 1; go to sinkbasin 1; clean mug 2 with sinkbasin 1; move mug 2 to countertop 1
inventory; take mug 2 from countertop 1; look; move mug 2 to sinkbasin 1; take mug 2 from sinkbasin 1
move mug 2 to countertop 1; go to cabinet 1; open cabinet 1; take mug 1 from cabinet 1; inventory
"""


# Goals that no shipped game has: a fact with conditional effects, and one that needs axioms with negation, in layers.
SWITCHED_ON = "(isOn desklamp_bar_1)"
ALL_MUGS = (
    "(forall (?o - object) (or (not (objectType ?o mugtype)) (exists (?r - receptacle)"
    " (and (inReceptacle ?o ?r) (receptacleType ?r countertoptype) (not (exists (?x - object) (holds agent1 ?x)))))))"
)
SWITCH = "look; go to desk 1; use desklamp 1; use desklamp 1; look; use desklamp 1; go to fridge 1; look"
GATHER = """
go to desk 1; take mug 2 from desk 1; go to countertop 1; move mug 2 to countertop 1; go to cabinet 1; open cabinet 1
take mug 1 from cabinet 1; go to countertop 1; move mug 1 to countertop 1; take apple 1 from countertop 1; look
move apple 1 to sinkbasin 1; take mug 1 from countertop 1
"""


@pytest.mark.parametrize(
    ("goal", "script", "wins"),
    [
        (GOAL, SHARED_PLACE, 0),
        (GOAL, CHANGES, 0),
        (GOAL, LAMP, 0),
        (GOAL, WIN_AND_ON, 7),
        (SWITCHED_ON, SWITCH, 4),
        (ALL_MUGS, GATHER, 2),
    ],
    ids=["shared", "changes", "lamp", "win", "conditional effects", "axioms"],
)
def test_scripts_of_what_depends_on_history_and_state(tmp_path: Path, goal: str, script: str, wins: int) -> None:
    stock, exact = both(write_kitchen(tmp_path, problem=lambda text: text.replace(GOAL, goal)))
    won = 0
    for command in script.replace("\n", ";").split(";"):
        command = command.strip()
        if command:
            assert (command in stock.admissible_commands) != command.startswith("!"), command
            stock.step(command.removeprefix("!"))
            exact.step(command.removeprefix("!"))
            assert_same(stock, exact, command)
            won += exact.won
    assert won == wins


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_whatever_hypothesis_types(small_games: list[Game], data: st.DataObject) -> None:
    stock, exact = both(data.draw(st.sampled_from(small_games)))
    for _ in range(data.draw(st.integers(1, 8))):
        known = st.sampled_from(list(stock.admissible_commands))
        command = data.draw(st.one_of(known, known, known, st.sampled_from(INVALID), st.text(max_size=20)))
        stock.step(command)
        exact.step(command)
        assert_same(stock, exact, command)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 10_000))
def test_what_the_graph_remembers_changes_no_text(small_games: list[Game], fresh_engine: None, seed: int) -> None:
    """A game that forgets everything after two states is the oracle for one that remembers all walks before this."""
    file = small_games[seed % len(small_games)]
    remembering = engine.load(file).start()
    engine.set_limits(states=2)
    forgetful = engine.load(file).start()
    engine.set_limits()
    for command in follow(random.Random(seed), [], remembering, 60):
        assert forgetful.step(command) == remembering.step(command)
        assert forgetful.admissible_commands == remembering.admissible_commands
        assert forgetful.won == remembering.won

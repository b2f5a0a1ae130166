"""The check of plans rejects invalid plans."""

from __future__ import annotations

from dataclasses import replace

import pytest

from prm_gym.envs.games import TASK_TYPES
from prm_gym.envs.households.catalog import catalog
from prm_gym.envs.households.household import Game
from prm_gym.envs.households.plans import NotSolvableError, check, walkthrough
from prm_gym.envs.households.writer import games


@pytest.fixture(scope="module")
def drawn() -> list[Game]:
    """One small game of each task type."""
    return [game for _, game in games("small", {"train": len(TASK_TYPES)}, 5)]


def test_every_command_of_a_plan_is_needed(drawn: list[Game]) -> None:
    tables = catalog()
    for game in drawn:
        plan = walkthrough(tables, game)
        check(tables, game, plan)
        for index in range(len(plan)):
            with pytest.raises(NotSolvableError):
                check(tables, game, plan[:index] + plan[index + 1 :])


def test_a_game_that_is_solved_at_the_start_is_refused(drawn: list[Game]) -> None:
    game = drawn[TASK_TYPES.index("pick_and_place_simple")]
    goal = next(place for place in game.receptacles if place.kind == game.task.goal)
    things = tuple(
        replace(thing, home=goal.id, location=goal.location) if thing.kind == game.task.target else thing
        for thing in game.things
    )
    with pytest.raises(NotSolvableError, match="solved before the first command"):
        check(catalog(), replace(game, things=things), [])


def test_commands_that_no_game_knows_are_refused(drawn: list[Game]) -> None:
    for command in ("", "dance", "go to", "go to moon 1", "take mug 99 from shelf 1", "use desklamp 9"):
        with pytest.raises(NotSolvableError, match="not admissible"):
            check(catalog(), drawn[0], [command])

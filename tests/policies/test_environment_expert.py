"""The expert of an environment: its own command, with the detours asked for."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from prm_gym.errors import UserError
from prm_gym.policies.environment_expert import EnvironmentExpert
from prm_gym.types import State

COMMANDS = ("go east", "go west", "look", "take coin")
STATE = State("g", "find the coin", ("a room",), (), COMMANDS, expert_action="go east")
MOVED = replace(STATE, observations=("a room", "a room"), actions=("go west",))
LOOKED = replace(MOVED, actions=("look",))


def actions(expert: EnvironmentExpert, state: State, count: int = 2000) -> list[str]:
    return [response.action for response in asyncio.run(expert.act(state, n=count))]


def test_without_detours_it_takes_the_environments_command() -> None:
    assert set(actions(EnvironmentExpert(), STATE)) == {"go east"}


@pytest.mark.parametrize("state", [STATE, MOVED])
def test_it_looks_before_a_share_of_its_commands(state: State) -> None:
    found = actions(EnvironmentExpert(dawdling=0.7), state)
    assert set(found) == {"go east", "look"}
    assert found.count("look") / len(found) == pytest.approx(0.7, abs=0.04)


def test_it_never_looks_twice_nor_where_that_is_no_command() -> None:
    expert = EnvironmentExpert(dawdling=1.0)
    assert set(actions(expert, LOOKED)) == {"go east"}
    assert set(actions(expert, replace(STATE, admissible_commands=("go east", "go west")))) == {"go east"}


def test_random_actions_are_uniform_and_come_first() -> None:
    found = actions(EnvironmentExpert(0.5, dawdling=1.0), STATE)
    assert found.count("go west") / len(found) == pytest.approx(0.5 / 4, abs=0.03)
    assert found.count("look") / len(found) == pytest.approx(0.5 + 0.5 / 4, abs=0.04)


@pytest.mark.parametrize("share", ["random_actions", "dawdling"])
def test_detours_need_admissible_commands(share: str) -> None:
    with pytest.raises(UserError, match=f"^{share}: needs admissible commands"):
        actions(EnvironmentExpert(**{share: 0.5}), replace(STATE, admissible_commands=None))
    with pytest.raises(UserError, match=f"^{share}: "):
        EnvironmentExpert(**{share: 1.5})

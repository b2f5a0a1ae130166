"""The random policy: uniform, and deterministic for a seed."""

from __future__ import annotations

import asyncio
from collections import Counter

from prm_gym.policies.random import RandomPolicy
from prm_gym.prompts import parse
from prm_gym.types import State

COMMANDS = ("go to bed 1", "go to desk 1", "inventory", "look")
STATE = State("game", "put a mug in desk", ("a bed 1 and a desk 1",), (), COMMANDS)


def test_every_admissible_command_is_as_likely() -> None:
    counts = Counter(response.action for response in asyncio.run(RandomPolicy().act(STATE, n=4000)))
    assert set(counts) == set(COMMANDS)
    assert all(abs(count - 1000) < 5 * (4000 * 0.25 * 0.75) ** 0.5 for count in counts.values())


def test_the_seed_and_the_turn_settle_what_is_drawn() -> None:
    def drawn(state: State, seed: int) -> list[str]:
        return [response.action for response in asyncio.run(RandomPolicy().act(state, n=20, seed=seed))]

    later = State("game", STATE.task, (*STATE.observations, "Nothing."), ("look",), COMMANDS)
    assert drawn(STATE, 1) == drawn(STATE, 1)
    assert drawn(STATE, 1) != drawn(STATE, 2)
    assert drawn(STATE, 1) != drawn(later, 1)


def test_the_text_parses_back_to_the_action() -> None:
    response = asyncio.run(RandomPolicy().act(STATE))[0]
    assert parse(response.text).action == response.action

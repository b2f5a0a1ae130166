"""J of a policy at held-out states, by hand."""

from __future__ import annotations

from typing import Any

import pytest

from experiments.branch_values import Tried
from experiments.held_out_value import held_out_value
from prm_gym.types import Response, State


class Alternating:
    """Says two actions in turn, whatever the state."""

    policy_id = "alternating"

    def __init__(self, *actions: str) -> None:
        self.actions = actions
        self.closed = False

    async def settings(self) -> dict[str, Any]:
        return {}

    async def act(self, state: State, *, n: int = 1, seed: int = 0) -> list[Response]:
        return [Response(action, "", action) for action in (self.actions * n)[:n]]

    async def close(self) -> None:
        self.closed = True


def test_an_action_that_was_tried_is_worth_its_rollouts_and_any_other_the_lowest() -> None:
    first = State("game", "task", ("o",), (), ("look", "go to desk 1"))
    second = State("game", "task", ("p",), (), None)
    held_out = [
        Tried(first, {}, {"look": 0.2, "go to desk 1": 0.8}),
        Tried(second, {}, {"look": 0.5, "inventory": 0.1}),
    ]
    policy = Alternating("look", "take mug 1 from desk 1")
    value, inadmissible = held_out_value(policy, held_out)
    assert value == pytest.approx((0.2 + 0.2 + 0.5 + 0.1) / 4)  # the second action is new in both states
    assert inadmissible == 0.5  # the second state does not tell what is admissible
    assert policy.closed

"""The expert that an environment brings along: `info["expert_action"]`, with random detours, for demonstrations."""

from __future__ import annotations

import random
from typing import Any

from prm_gym.errors import UserError, check_range
from prm_gym.prompts import format_response
from prm_gym.types import Response, State


class EnvironmentExpert:
    """Takes the environment's own next command, and in a share `random_actions` of the turns a random admissible one.

    It acts while an environment is played; the store does not keep what it would have done. It raises `UserError` where
    the environment has no expert, or does not tell its admissible commands and `random_actions` is above 0.
    """

    def __init__(self, random_actions: float = 0.0, *, policy_id: str | None = None) -> None:
        check_range("random_actions", random_actions, least=0, most=1)
        self.random_actions = random_actions
        self.policy_id = policy_id or (f"expert-random{random_actions:g}" if random_actions else "expert")

    async def settings(self) -> dict[str, Any]:
        return {"kind": "environment_expert", "random_actions": self.random_actions}

    async def act(self, state: State, *, n: int = 1, seed: int = 0) -> list[Response]:
        return [self._respond(state, random.Random(f"{seed} {state.game_id} {state.turn} {i}")) for i in range(n)]

    async def close(self) -> None:
        pass

    def _respond(self, state: State, rng: random.Random) -> Response:
        action = state.expert_action
        if rng.random() < self.random_actions:
            if not state.admissible_commands:
                problem = "random actions need admissible commands, which the environment does not tell"
                raise UserError("random_actions", problem, "say 0")
            action = rng.choice(state.admissible_commands)
        if action is None and state.turn == 0:
            problem = "the environment has no expert: no expert_action in its info"
            raise UserError("policy", problem, "name another policy, or start from a model")
        if action is None:
            raise ValueError("the environment's expert knows no next command")
        return Response(text=format_response("", action), reason="", action=action)

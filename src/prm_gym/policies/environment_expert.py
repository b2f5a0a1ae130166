"""The expert that an environment brings along: `info["expert_action"]`, with detours, for demonstrations."""

from __future__ import annotations

import random
from typing import Any

from prm_gym.errors import UserError, check_range
from prm_gym.prompts import format_response
from prm_gym.types import Response, State


class EnvironmentExpert:
    """Takes the environment's own next command, in a share `random_actions` of the turns a random admissible one, and
    before a share `dawdling` of its commands a needless `look` where that is admissible.

    It acts while an environment is played; the store does not keep what it would have done. It raises `UserError` where
    the environment has no expert, or does not tell its admissible commands and one of the shares is above 0.
    """

    def __init__(self, random_actions: float = 0.0, *, dawdling: float = 0.0, policy_id: str | None = None) -> None:
        self.shares = {"random_actions": random_actions, "dawdling": dawdling}
        for field, share in self.shares.items():
            check_range(field, share, least=0, most=1)
        named = [f"{field.removesuffix('_actions')}{share:g}" for field, share in self.shares.items() if share]
        self.policy_id = policy_id or "-".join(["expert", *named])

    async def settings(self) -> dict[str, Any]:
        return {"kind": "environment_expert", **self.shares}

    async def act(self, state: State, *, n: int = 1, seed: int = 0) -> list[Response]:
        return [self._respond(state, random.Random(f"{seed} {state.game_id} {state.turn} {i}")) for i in range(n)]

    async def close(self) -> None:
        pass

    def _respond(self, state: State, rng: random.Random) -> Response:
        action = state.expert_action
        for field, share in self.shares.items():
            if share and not state.admissible_commands:
                problem = "needs admissible commands, which the environment does not tell"
                raise UserError(field, problem, "say 0")
        commands = state.admissible_commands or ()
        if rng.random() < self.shares["random_actions"]:
            action = rng.choice(commands)
        elif "look" in commands and state.actions[-1:] != ("look",) and rng.random() < self.shares["dawdling"]:
            action = "look"
        if action is None and state.turn == 0:
            problem = "the environment has no expert: no expert_action in its info"
            raise UserError("policy", problem, "name another policy, or start from a model")
        if action is None:
            raise ValueError("the environment's expert knows no next command")
        return Response(text=format_response("", action), reason="", action=action)

"""A policy that takes admissible commands uniformly at random: the baseline for all others."""

from __future__ import annotations

import random
from typing import Any

from prm_gym.errors import UserError
from prm_gym.prompts import format_response
from prm_gym.types import Response, State


class RandomPolicy:
    """Uniform over the admissible commands. The draw depends on the seed, the game and the turn alone."""

    def __init__(self, policy_id: str = "random") -> None:
        self.policy_id = policy_id

    async def settings(self) -> dict[str, Any]:
        return {"kind": "random"}

    async def act(self, state: State, *, n: int = 1, seed: int = 0) -> list[Response]:
        if state.admissible_commands is None:
            raise UserError("policy", "the environment does not tell its admissible commands", "name another policy")
        rng = random.Random(f"{seed} {state.game_id} {state.turn}")
        actions = [rng.choice(state.admissible_commands) for _ in range(n)]
        return [Response(text=format_response("", action), reason="", action=action) for action in actions]

    async def close(self) -> None:
        pass

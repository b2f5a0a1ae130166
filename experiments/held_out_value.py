"""J of a policy, a measure to stop Stage 3 by that needs no success and no Q, from rollouts that Q was not trained on.

J is the mean value of the policy's actions at the states of held-out branches of another policy pi: an action that was
tried there has the mean discounted return of its rollouts, any other the lowest at that state. It is the first-order
change of pi's return (Kakade and Langford 2002).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np

from experiments.branch_values import Tried
from prm_gym.types import Policy

SAMPLES = 16


def held_out_value(policy: Policy, held_out: Sequence[Tried]) -> tuple[float, float]:
    """J of the policy and, where it is known, the share of inadmissible ones among its samples; closes the policy."""

    async def draw() -> list[list[str]]:
        try:
            drawn = await asyncio.gather(*(policy.act(state, n=SAMPLES, seed=7) for state, *_ in held_out))
        finally:
            await policy.close()
        return [[response.action for response in responses] for responses in drawn]

    worth, refused = [], []
    for (state, _, known), actions in zip(held_out, asyncio.run(draw()), strict=True):
        lowest = min(known.values())
        worth += [known.get(action, lowest) for action in actions]
        if (commands := state.admissible_commands) is not None:
            refused += [action not in commands for action in actions]
    return float(np.mean(worth)), float(np.mean(refused))

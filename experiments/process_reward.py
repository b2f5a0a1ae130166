"""Process rewards of a policy: Q(s, a) of one action a ~ pi(s) at each of a fixed set of states s."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from prm_gym.prm.scorer import Scorer
from prm_gym.store import read_episodes
from prm_gym.types import Policy, State


def states_of(episodes: Path, count: int, seed: int = 0) -> list[State]:
    """`count` states in which an action was chosen, drawn evenly from all of `episodes`."""
    places = [(episode, t) for episode in read_episodes(episodes) for t in range(episode.actions)]
    chosen = random.Random(seed).sample(places, min(count, len(places)))
    return [episode.state_at(t) for episode, t in chosen]


def process_rewards(policy: Policy, scorers: Sequence[Scorer], states: Sequence[State]) -> npt.NDArray[np.float64]:
    """Q [scorers, states] of the same actions; closes the policy."""

    async def measure() -> list[list[float]]:
        try:
            drawn = await asyncio.gather(*(policy.act(state, seed=i) for i, state in enumerate(states)))
        finally:
            await policy.close()
        pairs = [(state, response) for state, [response] in zip(states, drawn, strict=True)]
        return [await scorer.score(pairs) for scorer in scorers]

    return np.array(asyncio.run(measure()))


def lower_bound(rewards: npt.NDArray[np.float64]) -> float:
    """The mean over states of the lower bound of several Qs, [scorers, states]: their mean minus standard deviation.

    `rewards` must be on a common scale; a Q trained on preference pairs has its own.
    """
    return float((rewards.mean(axis=0) - rewards.std(axis=0)).mean())

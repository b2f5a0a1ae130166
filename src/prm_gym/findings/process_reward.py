"""What a PRM thinks of a policy: mean Q(s, a) of one action a ~ pi(s) at each of some fixed states s."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path

from prm_gym.prm_quality import Scorer
from prm_gym.store import read_episodes
from prm_gym.types import Policy, State


def states_of(episodes: Path, count: int, seed: int = 0) -> list[State]:
    """`count` states in which an action was chosen, drawn evenly from all of `episodes`."""
    places = [(episode, t) for episode in read_episodes(episodes) for t in range(episode.actions)]
    chosen = random.Random(seed).sample(places, min(count, len(places)))
    return [episode.state_at(t) for episode, t in chosen]


def process_reward(policy: Policy, scorers: Sequence[Scorer], states: Sequence[State]) -> list[float]:
    """The mean over `states` by each of `scorers`, all of the same actions; closes the policy."""

    async def measure() -> list[float]:
        try:
            drawn = await asyncio.gather(*(policy.act(state, seed=i) for i, state in enumerate(states)))
        finally:
            await policy.close()
        pairs = [(state, response) for state, [response] in zip(states, drawn, strict=True)]
        return [sum(q) / len(q) for scorer in scorers for q in [await scorer.score(pairs)]]

    return asyncio.run(measure())

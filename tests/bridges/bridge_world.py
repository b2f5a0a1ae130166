"""Households to bridge, a policy that plays them, and a Q that is known."""

from __future__ import annotations

from pathlib import Path

import pytest

from prm_gym.bridges.world import World, alfworld
from prm_gym.envs.alfworld import ALFWorldEnv
from prm_gym.prm.scorer import Scorer


def make_world(folder: Path, max_episode_steps: int = 30) -> World:
    """Three generated households."""
    pytest.importorskip("alfworld")
    from prm_gym.envs.households import generate

    generate(folder, preset="small", splits={"train": 3}, seed=0)
    return alfworld(folder, max_episode_steps=max_episode_steps)


def winning_actions(world: World, task: str) -> list[str]:
    """What the scripted expert does in `task`."""
    import asyncio

    from prm_gym.policies.expert import ExpertPolicy
    from prm_gym.types import State

    env = world.make()
    observation, info = env.reset(**world.tasks[task])
    observations, actions = [observation], []
    expert = ExpertPolicy()
    while not info["won"]:
        commands = tuple(info["admissible_commands"])
        state = State(info["game_id"], info["task"], tuple(observations), tuple(actions), commands)
        [response] = asyncio.run(expert.act(state, seed=len(actions)))
        observation, _, _, _, info = env.step(response.action)
        observations.append(observation)
        actions.append(response.action)
    return actions


class LengthQ(Scorer):
    """logit Q is 0 for an action of one word and -1000 for every other: Q is 1/2 or 0."""

    async def settings(self):
        return {}

    async def logits(self, pairs):
        return [0.0 if len(response.action.split()) == 1 else -1000.0 for _, response in pairs]

    async def close(self):
        pass


def replayed(world: World, task: str, actions: list[str]):
    """What the environment itself gives: observations, rewards, last info."""
    env = world.make()
    assert isinstance(env.unwrapped, ALFWorldEnv)
    observation, info = env.reset(**world.tasks[task])
    observations, rewards = [observation], []
    for action in actions:
        observation, reward, _, _, info = env.step(action)
        observations.append(observation)
        rewards.append(reward)
    return observations, rewards, info

"""skyrl-gym's multi-turn environment: made by its registry, played by texts, rewarded step by step."""

from __future__ import annotations

import pytest

pytest.importorskip("skyrl_gym", reason="skyrl-gym is not installed: pip install 'prm-gym[skyrl-gym]'")

import skyrl_gym
from bridge_world import LengthQ, replayed, winning_actions
from skyrl_gym.envs.base_text_env import BaseTextEnv

from prm_gym import prompts
from prm_gym.bridges.skyrl_gym import register
from prm_gym.bridges.step_q import StepQ
from prm_gym.errors import UserError
from prm_gym.types import State


def make(world, name, q=None, **extras):
    if name not in skyrl_gym.registry:
        register(name, world, prompt="compact", q=q)
    return skyrl_gym.make(name, env_config={}, extras=extras)


def test_the_conversation_is_that_of_a_rollout(world):
    task = next(iter(world.tasks))
    actions = winning_actions(world, task)
    observations, rewards, info = replayed(world, task, actions)
    env = make(world, "plain", task=task)
    assert isinstance(env, BaseTextEnv)
    system = {"role": "system", "content": "You play."}
    chat, _ = env.init([system])
    steps = []
    for action in actions:
        chat = [*chat, {"role": "assistant", "content": action}]
        steps.append(env.step(action))
        chat = [*chat, *steps[-1]["observations"]]
    state = State(task, info["task"], tuple(observations[:-1]), tuple(actions[:-1]), ())
    expected = prompts.load("compact").messages(state)
    assert chat == [system, *expected, {"role": "assistant", "content": actions[-1]}]
    assert [step["reward"] for step in steps] == rewards
    assert [step["done"] for step in steps] == [False] * (len(actions) - 1) + [True]
    assert env.get_metrics() == {"won": 1.0, "actions": len(actions)}
    env.close()


def test_a_step_is_rewarded_by_the_environment_and_q(world):
    task = next(iter(world.tasks))
    env = make(world, "with-q", q=StepQ(LengthQ(), 0.5), task=task)
    env.init([])
    assert [env.step(action)["reward"] for action in ("look", "go nowhere", "inventory")] == [0.25, 0.0, 0.25]


def test_two_environments_are_apart(world):
    one, other = (make(world, "apart", task=task) for task in list(world.tasks)[:2])
    first, second = one.init([]), other.init([])
    assert first != second
    one.step("look")
    assert (one.turns, other.turns) == (1, 0)


def test_a_row_without_a_task_is_refused(world):
    with pytest.raises(UserError, match="no task ''"):
        make(world, "no-task").init([])

"""The text environment of open-instruct's current main, against a checkout of it.

    OPEN_INSTRUCT_MAIN=path/to/open-instruct pytest tests/bridges/test_open_instruct.py

The checkout's `environments` and `data_loader` are the real ones; GRPO itself (vLLM, GPUs) is not run.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict

import pytest

pytest.importorskip(
    "open_instruct.environments.base",
    reason="OPEN_INSTRUCT_MAIN names no checkout of open-instruct's main, or what it needs is not installed",
    exc_type=ImportError,
)

from bridge_world import LengthQ, replayed, winning_actions
from open_instruct.environments.base import EnvCall, StepResult, TextRLEnvironment

from prm_gym import prompts
from prm_gym.bridges import open_instruct as bridge
from prm_gym.bridges.step_q import StepQ
from prm_gym.types import State


@pytest.fixture
def rollout(world):
    """An actor of the pool, made from its configuration as grpo_fast makes it."""
    path = next(iter(world.tasks.values()))["options"]["game_file"]
    games = path.split("/train/")[0]
    config = bridge.TextRolloutConfig(games=games)
    return config.tool_class(**asdict(config), call_name="prm_gym")


def call(text):
    return EnvCall(id="1", name="prm_gym", args={"text": text})


async def play(env, task, actions):
    first, tools = await env.reset(task=task)
    return first, tools, [await env.step(call(action)) for action in actions]


def test_an_episode_by_its_interface_is_the_environments_own(world, rollout):
    task = next(iter(world.tasks))
    actions = winning_actions(world, task)
    observations, rewards, info = replayed(world, task, actions)
    assert isinstance(rollout, TextRLEnvironment)
    asyncio.run(rollout.setup())
    first, tools, steps = asyncio.run(play(rollout, task, actions))
    assert tools == []
    assert all(type(step) is StepResult for step in steps)
    assert [step.reward for step in steps] == rewards
    assert [step.done for step in steps] == [False] * (len(actions) - 1) + [True]
    shown = [first.result, *(step.result for step in steps[:-1])]
    for t, text in enumerate(shown):
        state = State(task, info["task"], tuple(observations[: t + 1]), tuple(actions[:t]), ())
        assert text == prompts.load("compact").messages(state)[-1]["content"]
    assert rollout.get_metrics() == {"won": 1.0, "actions": float(len(actions))}
    assert rollout.state().step_count == len(actions)


def test_q_is_added_to_the_reward_of_each_step(world, rollout):
    rollout._q = StepQ(LengthQ(), 0.5)
    _, _, steps = asyncio.run(play(rollout, next(iter(world.tasks)), ["look", "go nowhere", "inventory"]))
    assert [step.reward for step in steps] == [0.25, 0.0, 0.25]


def test_a_row_names_its_task_and_shows_what_reset_shows(world, rollout):
    for row in bridge.rows(world, "compact"):
        [entry] = row["env_config"]["env_configs"]
        arguments = {key: value for key, value in entry.items() if key not in ("env_name", "is_text_env")}
        first, _ = asyncio.run(rollout.reset(**arguments))
        assert row["messages"][-1] == {"role": "user", "content": first.result}
        assert (entry["env_name"], entry["is_text_env"]) == (rollout.config_name, True)


def test_grpo_fast_finds_it_by_its_name():
    tools = pytest.importorskip("open_instruct.environments.tools.tools", exc_type=ImportError)
    bridge.register()
    assert tools.TOOL_REGISTRY["prm_gym"] is bridge.TextRolloutConfig


def test_the_row_is_what_the_data_loader_merges(world):
    loader = pytest.importorskip("open_instruct.data_loader", exc_type=ImportError)
    from open_instruct.data_types import EnvConfig

    row = next(bridge.rows(world, "compact"))
    merged = loader._merge_env_config(EnvConfig(max_steps=30), row["env_config"])
    assert merged.env_configs["prm_gym"].is_text_env
    assert merged.env_configs["prm_gym"].kwargs == {"task": next(iter(world.tasks))}

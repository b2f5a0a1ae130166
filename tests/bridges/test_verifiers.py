"""verifiers plays our tasks: its own loader, interception and trace, against a model that knows the way."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("verifiers.v1", reason="verifiers is not installed: pip install 'prm-gym[verifiers]'")

import verifiers.v1 as vf
from bridge_world import LengthQ, replayed, winning_actions
from fake_server import FakeServer, Reply
from verifiers.v1.utils.loaders import load_environment, resolve_env_config

from prm_gym import prompts
from prm_gym.bridges import verifiers as bridge
from prm_gym.bridges.step_q import StepQ
from prm_gym.types import State


@pytest.fixture
def environment(world, tmp_path, monkeypatch):
    """The environment as `vf-eval alfworld_tasks` loads it."""
    (tmp_path / "alfworld_tasks.py").write_text(
        "from prm_gym.bridges.verifiers import OneReply, TextTasks, TextTurns\n"
        '__all__ = ["OneReply", "TextTasks", "TextTurns"]\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("ANY_KEY", "none")
    games = next(iter(world.tasks.values()))["options"]["game_file"].split("/train/")[0]

    def make(**taskset):
        config = resolve_env_config({"taskset": {"id": "alfworld_tasks", "games": games, **taskset}})
        return load_environment(config)

    return make


def play(env, task_name, actions):
    """One episode whose model says `actions`; the episode and the conversations that the model was sent."""

    async def expert(request):
        turn = sum(message["role"] == "assistant" for message in request.body["messages"])
        message = {"role": "assistant", "content": actions[turn]}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        return Reply(
            body={
                "id": "1",
                "object": "chat.completion",
                "created": 0,
                "model": "m",
                "choices": choices,
                "usage": usage,
            }
        )

    async def main():
        async with FakeServer(expert) as server:
            client = vf.EvalClientConfig(base_url=server.url, api_key_var="ANY_KEY")
            [task] = [task for task in env.taskset if task.data.name == task_name]
            async with env.serving():
                episode = await env.run_episode(task, vf.ModelContext(model="m", client=client))
            return episode, [request.body["messages"] for request in server.requests]

    return asyncio.run(asyncio.wait_for(main(), 120))


def test_the_conversation_is_that_of_a_rollout_and_the_reward_its_return(world, environment):
    env = environment()
    assert [task.data.name for task in env.taskset] == list(world.tasks)
    task = next(iter(world.tasks))
    actions = winning_actions(world, task)
    observations, _, info = replayed(world, task, actions)
    episode, asked = play(env, task, actions)
    assert episode.ok, episode.errors
    [trace] = episode.traces
    assert {name: reward.score for name, reward in trace.rewards.items()} == {"outcome": 1.0}
    assert trace.metrics["won"] == 1.0
    assert len(asked) == len(actions)
    state = State(task, info["task"], tuple(observations[:-1]), tuple(actions[:-1]), ())
    assert asked[-1] == prompts.load("compact").messages(state)


def test_the_step_limit_ends_the_episode(world, environment):
    episode, asked = play(environment(max_episode_steps=3), next(iter(world.tasks)), ["look"] * 9)
    assert len(asked) == 3
    assert episode.traces[0].rewards["outcome"].score == 0.0


def test_qs_mean_is_a_reward_with_its_weight(world, environment, monkeypatch):
    monkeypatch.setattr(bridge, "_q", lambda prm: StepQ(LengthQ(), 1.0))
    env = environment(max_episode_steps=4, prm="Q_0", weight=0.5)
    episode, _ = play(env, next(iter(world.tasks)), ["look", "go nowhere", "inventory", "look"])
    q = episode.traces[0].rewards["q"]
    assert (q.score, q.weight) == (0.375, 0.5)

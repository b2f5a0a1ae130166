"""The part that the bridges share: what a host's model is shown, what its texts do, what Q is asked."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import gymnasium
import pytest
from bridge_world import LengthQ, replayed, winning_actions

from prm_gym import prompts
from prm_gym.bridges import step_q
from prm_gym.bridges import world as worlds
from prm_gym.bridges.step_q import StepQ
from prm_gym.bridges.text_episode import TextEpisode
from prm_gym.bridges.world import World, named
from prm_gym.errors import UserError
from prm_gym.types import PromptTooLong, State


def test_the_conversation_is_that_of_a_rollout(world):
    """The prompt of the last state, as a policy in a rollout reads it, is the conversation that the host has kept."""
    task = next(iter(world.tasks))
    actions = winning_actions(world, task)
    observations, rewards, info = replayed(world, task, actions)
    episode = TextEpisode(world, "compact")
    conversation = episode.begin(task)
    for action in actions:
        assert not episode.done
        conversation.append({"role": "assistant", "content": action})
        following = episode.respond(action)
        if following is not None:
            conversation.append(following)
    state = State(task, info["task"], tuple(observations[:-1]), tuple(actions[:-1]), ())
    assert conversation == [
        *prompts.load("compact").messages(state),
        {"role": "assistant", "content": actions[-1]},
    ]
    assert (episode.done, episode.won, episode.rewards) == (True, True, rewards)
    assert sum(rewards) == 1.0
    assert [s.actions for s, _ in episode.pairs] == [tuple(actions[:t]) for t in range(len(actions))]
    with pytest.raises(UserError, match="is over"):
        episode.respond("look")


def test_an_action_is_parsed_out_of_the_text(world):
    episode = TextEpisode(world, "compact")
    episode.begin(next(iter(world.tasks)))
    episode.respond("REASON: I am lost.\nACTION: look")
    [(_, response)] = episode.pairs
    assert (response.reason, response.action) == ("I am lost.", "look")


def test_a_prompt_that_repeats_the_history_is_refused(world):
    with pytest.raises(UserError, match="prompt: full repeats the history"):
        TextEpisode(world, "full")


def test_an_unknown_task_is_named(world):
    with pytest.raises(UserError, match="no task '/etc/passwd'; name one of the 3"):
        TextEpisode(world, "compact").begin("/etc/passwd")


class Echo(gymnasium.Env[str, str]):
    """Shows its seed and the last action; ends after two."""

    def reset(self, *, seed=None, options=None):
        self.steps = 0
        return f"seed {seed}", {}

    def step(self, action):
        self.steps += 1
        return f"you said {action}", 0.25, self.steps == 2, False, {}


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda: ("x", float("nan"), False, False, {}), "Echo: a reward of nan; return a finite number"),
        (lambda: (b"x", 0.0, False, False, {}), "Echo: an observation of type bytes, not str; return text"),
        (lambda: 1 / 0, "Echo: step raised ZeroDivisionError: .*; correct the environment"),
    ],
)
def test_a_faulty_environment_is_named(answer, said, monkeypatch):
    monkeypatch.setattr(Echo, "step", lambda self, action: answer())
    episode = TextEpisode(World(Echo, {"2": {"seed": 2}}), "compact")
    episode.begin("2")
    with pytest.raises(UserError, match=said):
        episode.respond("hello")


def test_rewards_of_any_size_are_the_environments_own(monkeypatch):
    monkeypatch.setattr(Echo, "step", lambda self, action: ("x", -7.5, False, False, {}))
    episode = TextEpisode(World(Echo, {"2": {"seed": 2}}), "compact")
    episode.begin("2")
    episode.respond("hello")
    assert episode.rewards == [-7.5]


def test_any_text_environment_will_do():
    episode = TextEpisode(World(Echo, {"2": {"seed": 2}}), "compact")
    assert "seed 2" in episode.begin("2")[-1]["content"]
    assert "you said hello" in episode.respond("hello")["content"]
    assert episode.respond("bye") is None
    assert episode.rewards == [0.25, 0.25]


def test_an_unknown_task_is_no_text(monkeypatch):
    monkeypatch.setattr(Echo, "reset", lambda self, **arguments: ("hello", {"task": None}))
    episode = TextEpisode(World(Echo, {"2": {"seed": 2}}), "compact")
    assert "None" not in episode.begin("2")[-1]["content"]


def test_the_step_limit_holds_without_the_environments_own():
    episode = TextEpisode(World(Echo, {"2": {"seed": 2}}, max_episode_steps=1), "compact")
    episode.begin("2")
    assert episode.respond("hello") is None
    assert not episode.won


def test_a_named_environment_is_a_world_of_its_tasks():
    world = named("prm_gym.envs.toy_text:frozen_lake", "valid_seen", max_episode_steps=2)
    task = next(iter(world.tasks))
    assert "/valid_seen/" in task
    episode = TextEpisode(world, "compact")
    assert episode.begin(task)[-1]["role"] == "user"
    assert episode.respond("nonsense")
    assert episode.respond("nonsense") is None


def test_q_as_a_reward_is_weighted_and_the_same_from_any_loop(world):
    episode = TextEpisode(world, "compact")
    episode.begin(next(iter(world.tasks)))
    for action in ("look", "go nowhere", "inventory"):
        episode.respond(action)
    q = StepQ(LengthQ(), weight=0.5)
    expected = [0.25, 0.0, 0.25]
    assert q.rewards(episode.pairs) == expected
    assert asyncio.run(q.rewards_async(episode.pairs)) == expected
    assert asyncio.run(q.rewards_async(episode.pairs)) == expected
    assert q.rewards([]) == []


def test_a_history_over_qs_context_has_no_reward_and_the_others_keep_theirs(world):
    class Short(LengthQ):
        async def logits(self, pairs):
            if any(state.turn > 1 for state, _ in pairs):
                raise PromptTooLong
            return await super().logits(pairs)

    episode = TextEpisode(world, "compact")
    episode.begin(next(iter(world.tasks)))
    for _ in range(3):
        episode.respond("look")
    assert StepQ(Short(), weight=1.0).rewards(episode.pairs) == [0.5, 0.5, 0.0]


def test_a_hosts_configuration_names_games_or_another_environment(world):
    folder = next(iter(world.tasks.values()))["options"]["game_file"].split("/train/")[0]
    assert worlds.configured(folder, "", "train", 30).tasks == world.tasks
    lake = worlds.configured(folder, "prm_gym.envs.toy_text:frozen_lake", "valid_seen", 7)
    assert lake.tasks == named("prm_gym.envs.toy_text:frozen_lake", "valid_seen").tasks
    assert lake.max_episode_steps == 7
    assert step_q.configured("", 1.0) is None


@pytest.mark.parametrize(
    ("module", "extra"), [("openenv", "openenv"), ("skyrl_gym", "skyrl-gym"), ("verifiers", "verifiers")]
)
def test_a_bridge_without_its_package_names_the_extra(module, extra):
    """In a process of its own, in which the package cannot be imported."""
    hidden = f"import runpy, sys; sys.modules[{module!r}] = None; sys.argv = ['bridge', 'games']; "
    program = hidden + f"runpy.run_module('prm_gym.bridges.{module}', run_name='__main__')"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.stderr.splitlines()[-1].endswith(f" is not installed; pip install 'prm-gym[{extra}]'")
    if module == "openenv":  # a program
        assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)

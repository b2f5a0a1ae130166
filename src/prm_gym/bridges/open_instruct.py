"""Text environments for GRPO in open-instruct's current main (`open_instruct/grpo_fast.py`, Python 3.12).

    import prm_gym.bridges.open_instruct as bridge
    bridge.register()                       # in the process that starts grpo_fast, before its main()
    ... --tools prm_gym --tool_configs '{"games": "games", "prm": "Q_0", "weight": 0.02}' --reward_aggregator sum

A row of the data set comes from `rows`: grpo_fast drops what `reset` shows, so the first observation is in the prompt.
The reward of a step is the environment's, plus weight * Q(s, a) where `prm` names a process reward model. grpo_fast
adds them up (`--reward_aggregator sum`) or takes the last (`last`, its default).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from open_instruct.environments.base import BaseEnvConfig, RLEnvironment, StepResult, TextRLEnvironment
from openenv.core.env_server.types import State

from prm_gym import prompts
from prm_gym.bridges import step_q, world
from prm_gym.bridges.text_episode import TextEpisode
from prm_gym.envs import MAX_EPISODE_STEPS

NAME = "prm_gym"


class TextRollout(TextRLEnvironment):
    """One actor of open-instruct's pool: an episode at a time, of the task that the row names."""

    config_name = NAME

    def __init__(
        self,
        games: str = "",
        env: str = "",
        split: str = "train",
        prompt: str = "compact",
        max_episode_steps: int = MAX_EPISODE_STEPS,
        prm: str = "",
        weight: float = 0.0,
        **_: Any,
    ) -> None:
        self._episode = TextEpisode(world.configured(games, env, split, max_episode_steps), prompt)
        self._q = step_q.configured(prm, weight)

    async def _reset(self, **kwargs: Any) -> StepResult:
        chat = await asyncio.to_thread(self._episode.begin, kwargs["task"])  # a game may have to be compiled
        return StepResult(result=chat[-1]["content"])

    async def text_step(self, text: str) -> StepResult:
        following = self._episode.respond(text)
        reward = self._episode.rewards[-1]
        if self._q is not None:
            reward += (await self._q.rewards_async(self._episode.pairs[-1:]))[0]
        return StepResult(
            result="" if following is None else following["content"],
            reward=reward,
            done=self._episode.done,
            metadata={"won": self._episode.won},
        )

    def get_metrics(self) -> dict[str, float]:
        return {"won": float(self._episode.won), "actions": float(len(self._episode.rewards))}

    def state(self) -> State:
        return State(step_count=len(self._episode.rewards))


@dataclass
class TextRolloutConfig(BaseEnvConfig):
    """The fields of `--tool_configs`."""

    tool_class: ClassVar[type[RLEnvironment]] = TextRollout
    games: str = ""
    env: str = ""  # another text environment in place of ALFWorld: its gymnasium id, or module:factory
    split: str = "train"
    prompt: str = "compact"
    max_episode_steps: int = MAX_EPISODE_STEPS
    prm: str = ""
    weight: float = 0.0


def register(config: type[BaseEnvConfig] = TextRolloutConfig) -> None:
    """Make the environment known to grpo_fast under its `config_name`."""
    from open_instruct.environments.tools.tools import TOOL_REGISTRY

    TOOL_REGISTRY[config.tool_class.config_name] = config


def rows(of: world.World, prompt: str | prompts.Prompt, tasks: Iterable[str] | None = None) -> Iterator[dict[str, Any]]:
    """A row of grpo_fast's data set for each task: the conversation before the first response, and the task's name."""
    episode = TextEpisode(of, prompt)
    for task in of.tasks if tasks is None else tasks:
        entry = {"env_name": NAME, "is_text_env": True, "task": task}
        yield {
            "messages": episode.begin(task),
            "ground_truth": "",
            "dataset": "passthrough",  # of the environment's rewards alone
            "env_config": {"env_configs": [entry]},
        }
    episode.close()

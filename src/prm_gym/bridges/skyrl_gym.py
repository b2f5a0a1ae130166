"""A multi-turn environment of skyrl-gym, for SkyRL's trainers.

    import prm_gym.bridges.skyrl_gym as bridge
    bridge.register("alfworld", alfworld("games"), prompt="compact")
    env = skyrl_gym.make("alfworld", extras={"task": task})

A row of a data set names its task: `{"prompt": [], "env_class": "alfworld", "task": ...}`. The reward of a step is the
environment's, plus `q`'s if there is a `q`; SkyRL gives it to the tokens of that step.
"""

from __future__ import annotations

from functools import partial
from typing import Any

try:
    import skyrl_gym
    from skyrl_gym.envs.base_text_env import BaseTextEnv, BaseTextEnvStepOutput
except ModuleNotFoundError as error:
    message = f"{error.name} is not installed; pip install 'prm-gym[skyrl-gym]'"
    raise ModuleNotFoundError(message, name=error.name) from None

from prm_gym import prompts
from prm_gym.bridges.step_q import StepQ
from prm_gym.bridges.text_episode import TextEpisode
from prm_gym.bridges.world import World
from prm_gym.types import Message


class TextGymEnv(BaseTextEnv):
    """One episode of the task that `extras` names."""

    def __init__(
        self,
        world: World,
        prompt: str | prompts.Prompt,
        q: StepQ | None = None,
        env_config: Any = None,
        extras: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self._episode, self._q = TextEpisode(world, prompt), q
        self._task = (extras or {}).get("task", "")

    def init(self, prompt: list[Message]) -> tuple[list[Message], dict[str, Any]]:
        """The messages before the first response: those of `prompt`, then the task's own."""
        return [*prompt, *self._episode.begin(self._task)], {}

    def step(self, action: str) -> BaseTextEnvStepOutput:
        """Execute the action in the model's text."""
        self.turns += 1
        following = self._episode.respond(action)
        reward = self._episode.rewards[-1]
        if self._q is not None:
            reward += self._q.rewards(self._episode.pairs[-1:])[0]
        return BaseTextEnvStepOutput(
            observations=[] if following is None else [following],
            reward=reward,
            done=self._episode.done,
            metadata={"won": self._episode.won},
            postprocessed_action=None,
        )

    def get_metrics(self) -> dict[str, Any]:
        return {"won": float(self._episode.won), "actions": self.turns}

    def close(self) -> None:
        self._episode.close()


def register(name: str, world: World, *, prompt: str | prompts.Prompt, q: StepQ | None = None) -> None:
    """Make `skyrl_gym.make(name)` play the tasks of `world`."""
    # bound here and not as the spec's kwargs, which skyrl_gym copies for every environment
    skyrl_gym.register(id=name, entry_point=partial(TextGymEnv, world, prompt, q))

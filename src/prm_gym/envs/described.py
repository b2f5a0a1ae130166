"""A wrapper that turns observations into text and commands into actions, for environments that are not textual."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, SupportsFloat

import gymnasium
from gymnasium.spaces import Text

NOT_UNDERSTOOD = "That is not possible."


class Described(gymnasium.Wrapper[str, str, Any, Any]):
    """A base class: `describe` gives the text of an observation, `parse` the action of a command.

    A command that `parse` does not understand is not passed to the environment. It changes nothing, its reward is 0,
    and it counts as a step of the rollout. Snapshots are not passed on; add them in the subclass.

    >>> class Spoken(Described):
    ...     def describe(self, observation):
    ...         return f"You are in square {observation}."
    ...
    ...     def parse(self, command):
    ...         return {"go left": 0, "go down": 1, "go right": 2, "go up": 3}.get(command)
    >>> env = Spoken(gymnasium.make("FrozenLake-v1", is_slippery=False))
    >>> env.reset()[0], env.step("go right")[0], env.step("fly")[0]
    ('You are in square 0.', 'You are in square 1.', 'That is not possible.')
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        self.observation_space = Text(65536, min_length=0)
        self.action_space = Text(1024, min_length=0)
        self._info: dict[str, Any] = {}

    @abstractmethod
    def describe(self, observation: Any) -> str:
        """The text of `observation`."""

    @abstractmethod
    def parse(self, command: str) -> Any:
        """The action that `command` stands for; None if it stands for none."""

    def commands(self, observation: Any, info: dict[str, Any]) -> list[str] | None:
        """The admissible commands; None, the default, if they are unknown."""
        return None

    def facts(self, observation: Any) -> dict[str, Any]:
        """Further entries of `info`, such as "task" and "won" (see `contract`)."""
        return {}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        return self._described(*self.env.reset(seed=seed, options=options))

    def step(self, action: str) -> tuple[str, SupportsFloat, bool, bool, dict[str, Any]]:
        parsed = self.parse(action.strip())
        if parsed is None:
            return NOT_UNDERSTOOD, 0.0, False, False, dict(self._info)
        observation, reward, terminated, truncated, info = self.env.step(parsed)
        text, info = self._described(observation, info)
        return text, reward, terminated, truncated, info

    def _described(self, observation: Any, info: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        commands = self.commands(observation, info)
        self._info = {**info, "admissible_commands": commands, **self.facts(observation)}
        return self.describe(observation), dict(self._info)

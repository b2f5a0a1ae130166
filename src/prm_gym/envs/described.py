"""Text for an environment whose observations and actions are something else: say it, and understand what is said."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, SupportsFloat

import gymnasium
from gymnasium.spaces import Text

NOT_UNDERSTOOD = "That is not possible."


class Described(gymnasium.Wrapper[str, str, Any, Any]):
    """A wrapper to subclass: `describe` gives the text of an observation, `parse` the action of a command.

    A command that `parse` does not understand does not reach the environment: it changes nothing, pays 0 and costs a
    step of the rollout. Snapshots are not passed on; add them in the subclass.

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
        """The action that `command` says; None if it says none."""

    def commands(self, observation: Any, info: dict[str, Any]) -> list[str] | None:
        """The admissible commands; None, the default, if they are not told."""
        return None

    def facts(self, observation: Any) -> dict[str, Any]:
        """More for `info`, such as "task" and "won" (see `contract`)."""
        return {}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        return self._told(*self.env.reset(seed=seed, options=options))

    def step(self, action: str) -> tuple[str, SupportsFloat, bool, bool, dict[str, Any]]:
        meant = self.parse(action.strip())
        if meant is None:
            return NOT_UNDERSTOOD, 0.0, False, False, dict(self._info)
        observation, reward, terminated, truncated, info = self.env.step(meant)
        text, info = self._told(observation, info)
        return text, reward, terminated, truncated, info

    def _told(self, observation: Any, info: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        told = {"admissible_commands": self.commands(observation, info), **self.facts(observation)}
        self._info = {**info, **told}
        return self.describe(observation), dict(self._info)

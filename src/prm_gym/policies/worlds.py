"""Worlds that a planner imagines in: the environment itself, by snapshot and restore.

A learned world model is in `learned_world`. The environment itself is no fair player, since it shows the planner what
an action will do before it is taken. It is the upper bound of every world model: the same planner without model error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

from prm_gym.envs.contract import CheckedEnvironment, Environment, Shown, Task, is_won
from prm_gym.errors import UserError
from prm_gym.types import Response, State

_KEPT = 65536  # snapshots, under 1 kB each in ALFWorld


class Imagined(NamedTuple):
    """The state after an action, as a world predicts it. `over`: the episode ends there, won or not."""

    state: State
    won: bool
    over: bool


class World(Protocol):
    """Predicts the next state. Calls may be concurrent."""

    name: str  # in the mode of results.json

    async def settings(self) -> dict[str, Any]:
        """Everything that the predictions depend on, as JSON values (see `provenance`)."""
        ...

    async def step(self, state: State, response: Response, *, seed: int = 0) -> Imagined:
        """The state after the action of `response`. Raises `PromptTooLong` if the history is over a model's context."""
        ...

    async def close(self) -> None: ...


class EngineWorld:
    """The environment that is played, as a world: exact, with its rewards.

    `make_env` constructs one with `snapshot` and `restore`; `tasks` hold the games. An episode is over after
    `max_episode_steps` actions. A state is reached from its snapshot, the first time by replaying its actions.
    """

    name = "engine"

    def __init__(
        self, make_env: Callable[[], Environment | CheckedEnvironment], tasks: Iterable[Task], max_episode_steps: int
    ) -> None:
        env = make_env()
        self._env = env if isinstance(env, CheckedEnvironment) else CheckedEnvironment(env)
        if not self._env.can_restore:
            problem = "has no snapshot and restore, so nothing can be tried in it"
            raise UserError(self._env.name, problem, "plan in a world model", field="world")
        self._tasks = {task.game_id: task for task in tasks}
        self._limit = max_episode_steps
        self._known: dict[bytes, tuple[Any, tuple[float, ...]]] = {}  # snapshot and rewards at a key, oldest first

    async def settings(self) -> dict[str, Any]:
        return {"kind": "engine"}

    async def step(self, state: State, response: Response, *, seed: int = 0) -> Imagined:
        """Raises `UserError` if the environment fails, or shows another observation than `state` when replayed."""
        task = self._tasks[state.game_id]
        snapshot, rewards = self._known.get(state.key) or self._replayed(state, task)
        self._env.restore(snapshot, task)
        shown, reward, ended, cut_off = self._env.step(response.action)
        rewards = (*rewards, reward)
        after = extended(state, response, shown.observation, shown.admissible_commands)
        if ended or cut_off or after.turn >= self._limit:
            return Imagined(after, is_won(shown.info, ended, self._env.rescaled(list(rewards))), over=True)
        self._keep(after, rewards)
        return Imagined(after, won=False, over=False)

    async def close(self) -> None:
        self._env.close()

    def _replayed(self, state: State, task: Task) -> tuple[Any, tuple[float, ...]]:
        shown: Shown = self._env.reset(task)
        rewards: list[float] = []
        for action in state.actions:
            shown, reward, *_ = self._env.step(action)
            rewards.append(reward)
        if shown.observation != state.observations[-1]:
            problem = f"shows another observation at turn {state.turn} of {state.game_id} when it is played again"
            raise UserError(self._env.name, problem, "let all chance depend on the seed of reset", field="world")
        return self._keep(state, tuple(rewards))

    def _keep(self, state: State, rewards: tuple[float, ...]) -> tuple[Any, tuple[float, ...]]:
        self._known[state.key] = known = (self._env.snapshot(), rewards)
        if len(self._known) > _KEPT:
            del self._known[next(iter(self._known))]
        return known


def extended(state: State, response: Response, observation: str, commands: list[str] | None) -> State:
    """`state` with the action of `response` and the `observation` that follows."""
    return replace(
        state,
        observations=(*state.observations, observation),
        actions=(*state.actions, response.action),
        reasons=(*state.reasons, response.reason) if len(state.reasons) == state.turn else (),
        admissible_commands=None if commands is None else tuple(commands),
        expert_action=None,
    )

"""The server: an environment for each session."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from functools import partial
from typing import Any

from openenv.core.env_server import create_fastapi_app
from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import ConcurrencyConfig
from pydantic import BaseModel, ValidationError

from prm_gym.bridges.openenv.message_limit import MessageLimit
from prm_gym.bridges.openenv.messages import MESSAGE_BYTES, Command, Shown, TextState
from prm_gym.bridges.world import World
from prm_gym.envs import contract
from prm_gym.envs.contract import ANY_REWARD, CheckedEnvironment, Task
from prm_gym.errors import UserError

IDLE_SECONDS = 600.0


class Snapshot(BaseModel):
    """A state of the environment, its task, and what was shown there."""

    task_name: str
    step_count: int
    shown: dict[str, Any]
    state: tuple[Any, float, bool | None]  # `CheckedEnvironment.snapshot`


class TextEnvironment(Environment[Command, Shown, TextState]):
    """One session on `world`. Raises `UserError` for an unknown task or snapshot, and as `CheckedEnvironment`."""

    SUPPORTS_CONCURRENT_SESSIONS = True
    REQUIRES_SINGLE_THREAD_EXECUTOR = True  # games are loaded one at a time and shared

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world, self._env = world, CheckedEnvironment(world.make(), reward_range=ANY_REWARD)
        self._state = TextState()
        self._shown: Shown | None = None

    def reset(
        self,
        seed: int | None = None,
        episode_id: str | None = None,
        task: str | None = None,
        snapshot: Mapping[str, Any] | None = None,
    ) -> Shown:
        """Begin `task`, or the one that `seed` draws (a random one for None), or return to `snapshot`."""
        if snapshot is not None:
            return self._restore(snapshot, episode_id)
        name = random.Random(seed).choice(sorted(self._world.tasks)) if task is None else str(task)
        shown = self._env.reset(self._task(name))
        self._state = TextState(episode_id=episode_id, task_name=name)
        return self._show(shown, done=False)

    def _restore(self, snapshot: Mapping[str, Any], episode_id: str | None) -> Shown:
        if not self._env.can_restore:
            raise UserError("snapshot", "the environment restores none", "reset by a task or a seed")
        try:
            saved = Snapshot.model_validate(snapshot)
            shown: Shown = Shown.model_validate(saved.shown)
        except ValidationError:
            raise UserError("snapshot", f"got {snapshot!r:.100}", "give what `snapshot` returned") from None
        self._env.restore(saved.state, self._task(saved.task_name))
        self._state = TextState(episode_id=episode_id, task_name=saved.task_name, step_count=saved.step_count)
        self._shown = shown
        return shown

    def _task(self, name: str) -> Task:
        return Task(name, "", **self._world.arguments(name))

    def step(self, action: Command, timeout_s: float | None = None, **_: Any) -> Shown:
        shown, reward, terminated, truncated = self._env.step(action.command)
        self._state.step_count += 1
        truncated = not terminated and (truncated or self._state.step_count >= self._world.max_episode_steps)
        return self._show(shown, done=terminated or truncated, reward=reward, truncated=truncated)

    async def step_async(self, action: Command, timeout_s: float | None = None, **_: Any) -> Shown:
        """In the event loop: a step of the exact engine is shorter than the way to a thread."""
        return self.step(action)

    @property
    def state(self) -> TextState:
        return TextState(**{**self._state.model_dump(), "snapshot": self._snapshot()})

    def _snapshot(self) -> dict[str, Any] | None:
        """None before the first reset, and where the environment has no snapshots or none that JSON can say."""
        if self._shown is None or not self._env.can_restore:
            return None
        of = self._state
        saved = Snapshot(
            task_name=of.task_name, step_count=of.step_count, shown=self._shown.model_dump(), state=self._env.snapshot()
        )
        try:
            told: dict[str, Any] = json.loads(json.dumps(saved.model_dump()))
        except (TypeError, ValueError):
            return None
        return told

    def close(self) -> None:
        self._env.close()

    def _show(self, shown: contract.Shown, **outcome: Any) -> Shown:
        info = shown.info
        fields = {name: info[name] for name in ("task", "task_type", "won") if info.get(name) is not None}
        commands = shown.admissible_commands
        self._shown = Shown(text=shown.observation, admissible_commands=commands, **fields, **outcome)
        return self._shown


def app(world: World, sessions: int = 64) -> Any:
    """The ASGI application of a server with at most so many sessions at once."""
    limits = ConcurrencyConfig(max_concurrent_envs=sessions, session_timeout=IDLE_SECONDS)
    served = create_fastapi_app(partial(TextEnvironment, world), Command, Shown, concurrency_config=limits)
    served.add_middleware(MessageLimit, most=MESSAGE_BYTES)
    return served

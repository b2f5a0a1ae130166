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

from prm_gym.bridges.openenv.message_limit import MessageLimit
from prm_gym.bridges.openenv.messages import MESSAGE_BYTES, Command, Shown, TextState
from prm_gym.bridges.world import World
from prm_gym.errors import UserError

IDLE_SECONDS = 600.0


class TextEnvironment(Environment[Command, Shown, TextState]):
    """One session on `world`."""

    SUPPORTS_CONCURRENT_SESSIONS = True
    REQUIRES_SINGLE_THREAD_EXECUTOR = True  # games are loaded one at a time and shared

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world, self._env = world, world.make()
        self._inner: Any = getattr(self._env, "unwrapped", self._env)
        self._state, self._begun = TextState(), False

    def reset(
        self,
        seed: int | None = None,
        episode_id: str | None = None,
        task: str | None = None,
        snapshot: Mapping[str, Any] | None = None,
    ) -> Shown:
        """Begin `task`, or the one that `seed` draws (a random one for None), or return to `snapshot`."""
        self._state = TextState(episode_id=episode_id)
        if snapshot is not None:
            if not hasattr(self._inner, "restore"):
                raise UserError("snapshot", "the environment restores none", "reset by a task or a seed")
            if not self._begun:  # gymnasium's wrappers refuse a step before the first reset
                self._env.reset(**next(iter(self._world.tasks.values())))
            observation, info = self._inner.restore(snapshot)
        else:
            name = random.Random(seed).choice(sorted(self._world.tasks)) if task is None else str(task)
            observation, info = self._env.reset(**self._world.arguments(name))
            self._state.task_name = name
        self._begun = True
        return self._shown(observation, info, done=False)

    def step(self, action: Command, timeout_s: float | None = None, **_: Any) -> Shown:
        observation, reward, terminated, truncated, info = self._env.step(action.command)
        self._state.step_count += 1
        truncated = not terminated and (truncated or self._state.step_count >= self._world.max_episode_steps)
        shown = self._shown(observation, info, done=bool(terminated or truncated))
        shown.reward, shown.truncated = float(reward), bool(truncated)
        return shown

    async def step_async(self, action: Command, timeout_s: float | None = None, **_: Any) -> Shown:
        """In the event loop: a step of the exact engine is shorter than the way to a thread."""
        return self.step(action)

    @property
    def state(self) -> TextState:
        snapshot = None
        if self._begun and hasattr(self._inner, "snapshot"):
            snapshot = json.loads(json.dumps(self._inner.snapshot()))
        return TextState(**{**self._state.model_dump(), "snapshot": snapshot})

    def close(self) -> None:
        self._env.close()

    def _shown(self, text: str, info: Mapping[str, Any], *, done: bool) -> Shown:
        fields = {name: info[name] for name in ("task", "task_type", "admissible_commands", "won") if name in info}
        return Shown(text=text, done=done, **fields)


def app(world: World, sessions: int = 64) -> Any:
    """The ASGI application of a server with at most so many sessions at once."""
    limits = ConcurrencyConfig(max_concurrent_envs=sessions, session_timeout=IDLE_SECONDS)
    served = create_fastapi_app(partial(TextEnvironment, world), Command, Shown, concurrency_config=limits)
    served.add_middleware(MessageLimit, most=MESSAGE_BYTES)
    return served

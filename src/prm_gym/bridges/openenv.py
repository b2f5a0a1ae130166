"""An OpenEnv server of a text environment, and its client.

    python -m prm_gym.bridges.openenv GAMES [--split train] [--port 8000] [--sessions 64]

Each WebSocket is a session with an environment of its own. A client begins a task by its name or a seed, sends one
command a step, reads a snapshot from the state and restores one by `reset`. It gives no path: a task's name is looked
up, never opened. What clients send is at most `MESSAGE_BYTES` long, and a session that idles is closed.

Left out: OpenEnv's MCP tools and web page.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Mapping
from functools import partial
from typing import Any

from openenv.core import EnvClient
from openenv.core.client_types import StepResult
from openenv.core.env_server import create_fastapi_app
from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import Action, ConcurrencyConfig, Observation, State
from pydantic import Field

from prm_gym.bridges.message_limit import MessageLimit
from prm_gym.bridges.world import World, alfworld
from prm_gym.errors import UserError

MESSAGE_BYTES = 16_384
IDLE_SECONDS = 600.0


class Command(Action):
    command: str = Field(max_length=1024)


class Shown(Observation):
    """What the environment shows. `admissible_commands` is None where it lists none."""

    text: str
    task: str = ""
    task_type: str = ""
    admissible_commands: list[str] | None = None
    won: bool = False
    truncated: bool = False


class TextState(State):
    task_name: str = ""
    snapshot: Any = None  # JSON; None where the environment has none


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


class TextEnvClient(EnvClient[Command, Shown, TextState]):
    """`await client.reset(task=...)`, `await client.step(Command(command="look"))`; `.sync()` for callers without an
    event loop. Every client is a session.
    """

    async def snapshot(self) -> Any:
        """The session's state, which any session of a server with the same tasks restores."""
        return (await self.state()).snapshot

    async def restore(self, snapshot: Any) -> StepResult[Shown]:
        return await self.reset(snapshot=snapshot)

    def _step_payload(self, action: Command) -> dict[str, Any]:
        return {"command": action.command}

    def _parse_result(self, payload: dict[str, Any]) -> StepResult[Shown]:
        reward, done = payload["reward"], payload["done"]
        shown = Shown(**payload["observation"], reward=reward, done=done)
        return StepResult(observation=shown, reward=reward, done=done)

    def _parse_state(self, payload: dict[str, Any]) -> TextState:
        return TextState(**payload)


def app(world: World, sessions: int = 64) -> Any:
    """The ASGI application of a server with at most so many sessions at once."""
    limits = ConcurrencyConfig(max_concurrent_envs=sessions, session_timeout=IDLE_SECONDS)
    served = create_fastapi_app(partial(TextEnvironment, world), Command, Shown, concurrency_config=limits)
    served.add_middleware(MessageLimit, most=MESSAGE_BYTES)
    return served


def main() -> None:
    import uvicorn

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("games")
    parser.add_argument("--split", default="train")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--sessions", type=int, default=64)
    options = parser.parse_args()
    served = app(alfworld(options.games, options.split), options.sessions)
    uvicorn.run(served, host=options.host, port=options.port, ws_max_size=MESSAGE_BYTES, log_level="warning")


if __name__ == "__main__":
    main()

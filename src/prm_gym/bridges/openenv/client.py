"""The client of a server of text environments."""

from __future__ import annotations

from typing import Any

from openenv.core import EnvClient
from openenv.core.client_types import StepResult

from prm_gym.bridges.openenv.messages import Command, Shown, TextState


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

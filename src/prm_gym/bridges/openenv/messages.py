"""What a client and the server say to each other."""

from __future__ import annotations

from typing import Any

from openenv.core.env_server.types import Action, Observation, State
from pydantic import Field

MESSAGE_BYTES = 16_384


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

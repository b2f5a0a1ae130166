"""The interface of an engine: a game to start, and plays of it that can step, fork and be saved as plain data.

Two engines implement it: `prm_gym.envs.engine` (exact, fast) and `prm_gym.envs.stock` (alfworld's own, slow). The
gymnasium environment wraps it. It can be used directly too:

    game = prm_gym.envs.engine.load(path)
    play = game.start()
    observation = play.step("go to desk 1")
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Sequence
from typing import Any, Protocol, TypedDict

from prm_gym.errors import UserError

NOTHING_HAPPENS = "Nothing happens."
"""What ALFWorld answers to an inadmissible command."""


class Snapshot(TypedDict):
    """A state as plain data for JSON. Another process with the same game file can restore it.

    `state` can be read by the engine `engine` for the game file with the digest `game`.
    """

    engine: str
    game: str
    state: str


def pack(engine: str, game: str, state: Any) -> Snapshot:
    """A snapshot of `state`, which is data for JSON."""
    packed = base64.b85encode(zlib.compress(json.dumps(state).encode(), 9)).decode()
    return {"engine": engine, "game": game, "state": packed}


def unpack(snapshot: Snapshot, engine: str, game: str) -> Any:
    """The state of a snapshot of this `engine` and `game`. Raises `UserError` if it is of others, `ValueError` or
    `TypeError` if it is damaged.
    """
    if (snapshot["engine"], snapshot["game"]) != (engine, game):
        raise UserError("snapshot", "of another game or engine", "restore it where it was taken", field="game")
    try:
        return json.loads(zlib.decompress(base64.b85decode(snapshot["state"])))
    except zlib.error as error:
        raise ValueError(str(error)) from error


class Play(Protocol):
    """One episode under way. A play belongs to one thread at a time; many plays may share a game."""

    @property
    def game(self) -> PlayableGame:
        """The game that is played."""
        ...

    @property
    def observation(self) -> str:
        """The current text: at the start the room and the task, later the answer to the last command."""
        ...

    @property
    def admissible_commands(self) -> Sequence[str]:
        """The commands that the game accepts now, sorted. Callers must not change the list."""
        ...

    @property
    def won(self) -> bool:
        """Whether the goal holds now. Play may continue after it and undo the goal, as in the stock game."""
        ...

    def step(self, command: str) -> str:
        """Execute `command` and return the text. An inadmissible command changes nothing and counts as a step."""
        ...

    def fork(self) -> Play:
        """An independent play in the same state."""
        ...

    def snapshot(self) -> Snapshot:
        """The state as plain data, under 1 kB."""
        ...


class PlayableGame(Protocol):
    """A game that can be played any number of times."""

    @property
    def task(self) -> str:
        """The task's sentence without its full stop."""
        ...

    def start(self) -> Play:
        """A play at the game's beginning."""
        ...

    def restore(self, snapshot: Snapshot) -> Play:
        """A play in the state of `snapshot`. Raises `UserError` if it is of another game or engine, or damaged."""
        ...

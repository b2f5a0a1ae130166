"""The interface of an engine: a game to start, and plays of it that can step, fork and be saved as plain data.

Two engines implement it: `prm_gym.envs.engine` (exact, fast) and `prm_gym.envs.stock` (alfworld's own, slow). The
gymnasium environment wraps it. It can be used directly too:

    game = prm_gym.envs.engine.load(path)
    play = game.start()
    observation = play.step("go to desk 1")
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypedDict


class Snapshot(TypedDict):
    """A state as plain data for JSON. Another process with the same game file can restore it.

    `state` can be read by the engine `engine` for the game file with the digest `game`.
    """

    engine: str
    game: str
    state: str


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

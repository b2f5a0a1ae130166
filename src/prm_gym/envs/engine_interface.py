"""What an engine gives: a game that can be started, and plays of it that step, fork and are kept as plain data.

Two engines implement this: `prm_gym.envs.engine` (exact, fast) and `prm_gym.envs.stock` (alfworld's own, slow). The
gymnasium environment is a thin shell over it, and a rollout that needs thousands of episodes may use it directly:

    game = prm_gym.envs.engine.load(path)
    play = game.start()
    observation = play.step("go to desk 1")
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypedDict


class Snapshot(TypedDict):
    """A state as plain data: JSON holds it, another process with the same game file restores it.

    `engine` and `game` (the digest of the game file) say who can read `state`.
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
        """The text shown last: at the start the room and the task, later the answer to the last command."""
        ...

    @property
    def admissible_commands(self) -> Sequence[str]:
        """The commands the game accepts now, in the engine's order (sorted). Not to be changed."""
        ...

    @property
    def won(self) -> bool:
        """Whether the goal holds now. Play may go on past it, and the goal may be undone, as in the stock game."""
        ...

    def step(self, command: str) -> str:
        """Carry out `command` and return the text. A command not admissible changes nothing and costs a step."""
        ...

    def fork(self) -> Play:
        """An independent play that stands where this one stands."""
        ...

    def snapshot(self) -> Snapshot:
        """This state as plain data, under 1 kB."""
        ...


class PlayableGame(Protocol):
    """A game ready to be played any number of times."""

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

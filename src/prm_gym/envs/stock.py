"""Stock alfworld as an engine: TextWorld's PDDL environment with alfworld's names of objects, unchanged.

It does about ten steps a second and is the reference for the exact engine. TextWorld and its translator hold global
state, so one lock serialises all calls of a process; concurrent plays are correct but not faster. A snapshot is the
list of the commands that had an effect, and is restored by repeating them.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from os import PathLike, fspath
from typing import Any

from prm_gym.envs.engine_interface import NOTHING_HAPPENS, Snapshot, pack, unpack
from prm_gym.envs.games import Source, read_game
from prm_gym.envs.textworld_lock import exclusive
from prm_gym.errors import UserError

# Each TextWorld environment loads its own 34 MB copy of the planner library. Unloading one while another is loaded
# crashes the process, so environments are reused.
_idle: list[Any] = []


class StockGame:
    """A game file played by stock alfworld. Raises `UserError` when it cannot be read or alfworld is not installed."""

    def __init__(self, path: str | PathLike[str]) -> None:
        self.source: Source = read_game(path)
        try:
            import alfworld  # noqa: F401
            import fast_downward  # noqa: F401
            import textworld  # noqa: F401
        except ImportError as error:
            problem = f"{error.name} is not installed"
            raise UserError("engine='stock'", problem, "pip install 'prm-gym[alfworld]'") from error

    @property
    def task(self) -> str:
        return self.source.task

    def start(self) -> StockPlay:
        return StockPlay(self)

    def restore(self, snapshot: Snapshot) -> StockPlay:
        try:
            saved = unpack(snapshot, "stock", self.source.digest)
            commands, last_failed = list(map(str, saved["commands"])), bool(saved["last_failed"])
        except (ValueError, KeyError, TypeError) as error:
            raise UserError("snapshot", "damaged", "take it again", field="state") from error
        play = StockPlay(self)
        for command in commands:
            play.step(command)
        if last_failed:
            play.step("")
        return play


class StockPlay:
    """One episode of stock alfworld."""

    def __init__(self, game: StockGame) -> None:
        from alfworld.agents.environment.alfred_tw_env import AlfredDemangler
        from textworld import EnvInfos
        from textworld.envs.pddl import PddlEnv

        self.game = game
        self._commands: list[str] = []
        with exclusive():
            backend = _idle.pop() if _idle else PddlEnv(EnvInfos(won=True, admissible_commands=True))
            weakref.finalize(self, _idle.append, backend).atexit = False
            self._env: Any = AlfredDemangler()(backend)
            self._env.load(fspath(game.source.path))
            self._state: Any = self._env.reset()

    @property
    def observation(self) -> str:
        return str(self._state.feedback)

    @property
    def admissible_commands(self) -> Sequence[str]:
        return list(self._state["admissible_commands"])

    @property
    def won(self) -> bool:
        return bool(self._state["won"])

    def step(self, command: str) -> str:
        effective = command.strip() in self._state["admissible_commands"]
        with exclusive():
            self._state, _, _ = self._env.step(command)
        if effective:
            self._commands.append(command.strip())
        return self.observation

    def fork(self) -> StockPlay:
        return self.game.restore(self.snapshot())

    def snapshot(self) -> Snapshot:
        last_failed = bool(self._state.last_command) and self.observation == NOTHING_HAPPENS
        return pack("stock", self.game.source.digest, {"commands": self._commands, "last_failed": last_failed})

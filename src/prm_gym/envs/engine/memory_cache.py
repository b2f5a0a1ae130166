"""An LRU cache of compiled games in memory, shared by all plays of the process."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from warnings import warn

from prm_gym.envs.engine.disk_cache import stored_game
from prm_gym.envs.engine.exact_game import ExactGame
from prm_gym.envs.engine_interface import PlayableGame
from prm_gym.envs.stock import StockGame
from prm_gym.errors import UserError

_Key = tuple[str, int, int, str]


class LoadedGames:
    """An LRU cache of games.

    Parameters
    ----------
    games: the number of cached games. An evicted game stays in memory while it is played.
    states: the number of cached states per game, see `state_graph.Graph`.
    """

    def __init__(self, games: int, states: int) -> None:
        if games < 1 or states < 1:
            raise UserError("engine limits", f"games={games}, states={states}", "use at least 1 of each")
        self.games = games
        self.states = states
        self._held: OrderedDict[_Key, PlayableGame] = OrderedDict()
        self._lock = threading.Lock()

    def load(self, path: str | os.PathLike[str], cache: str | os.PathLike[str] | None) -> PlayableGame:
        """The game at `path`, cached or loaded now. A file that has changed on disk is another game.

        Raises `UserError` as `disk_cache.stored_game`, and for a game that neither engine may play.
        """
        try:
            told = os.stat(path)
        except OSError as error:
            raise UserError(path, f"cannot read the game file ({error.strerror})", "check the path") from error
        key = os.fspath(path), told.st_mtime_ns, told.st_size, os.fspath(cache or "")
        with self._lock:
            game = self._held.get(key)
            if game is not None:
                self._held.move_to_end(key)
                return game
        game = self._open(path, cache)
        with self._lock:
            game = self._held.setdefault(key, game)
            while len(self._held) > self.games:
                self._held.popitem(last=False)
        return game

    def _open(self, path: str | os.PathLike[str], cache: str | os.PathLike[str] | None) -> PlayableGame:
        stored = stored_game(path, cache)
        if not stored.unsupported:
            return ExactGame(stored, self.states)
        if stored.unsafe:
            remedy = "play it with engine='stock' only if you trust the file: stock evaluates it as Python"
            raise UserError(path, stored.unsupported, remedy, field="grammar")
        warn(f"{path} is played by stock alfworld, a thousand times slower: {stored.unsupported}", stacklevel=4)
        return StockGame(path)

"""The exact engine: stock alfworld's texts, commands and wins to the byte, about a thousand times faster.

    from prm_gym.envs import engine
    engine.compile_games(paths, workers=2)      # once, where alfworld is installed
    game = engine.load(path)                    # anywhere, shared by all plays of the process
    play = game.start()
    play.step("go to desk 1"), play.admissible_commands, play.won
    twin = play.fork()

A game goes through these modules: `translate` grounds its planning problem and `grammar` reads its texts, both with
stock's own parsers; `text_dependencies` and `invariants` show that the fast path is exact for it; `compiler` makes
plain data of it, with `text_templates` for all that its texts can say, which `file_format` and `disk_cache` keep in a
file; `state_graph` plays that data, with `text_rendering` and `axioms`; `exact_game` gives it the form of
`prm_gym.envs.engine_interface`. A game that is not shown exact is played by stock alfworld, with a warning.
"""

from __future__ import annotations

from os import PathLike

from prm_gym.envs.engine.memory_cache import LoadedGames
from prm_gym.envs.engine.precompile import Compilation, compile_games
from prm_gym.envs.engine_interface import PlayableGame

__all__ = ["Compilation", "compile_games", "load", "set_limits"]

_loaded = LoadedGames(games=4096, states=20_000)


def load(path: str | PathLike[str], *, cache: str | PathLike[str] | None = None) -> PlayableGame:
    """The game at `path`, ready to be played: held by this process already, or read from the cache, or compiled now.

    `cache` is the folder of compiled games, see `prm_gym.envs.engine.disk_cache`. Raises `UserError` when the game file
    is missing or damaged, or has to be compiled where alfworld is not installed.
    """
    return _loaded.load(path, cache)


def set_limits(*, games: int = 4096, states: int = 20_000) -> None:
    """Bound what this process holds: `games` at a time, and `states` remembered of each. Forgets what it holds now."""
    global _loaded
    _loaded = LoadedGames(games, states)

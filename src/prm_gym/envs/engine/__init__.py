"""The exact engine: byte for byte the texts, commands and wins of stock alfworld, about a thousand times faster.

    from prm_gym.envs import engine
    engine.compile_games(paths, workers=2)      # once, where alfworld is installed
    game = engine.load(path)                    # anywhere, shared by all plays of the process
    play = game.start()
    play.step("go to desk 1"), play.admissible_commands, play.won
    twin = play.fork()

A game goes through these modules: `translate` grounds its planning problem and `grammar` parses its texts, both with
stock's own parsers; `text_dependencies` and `invariants` prove that the fast path is exact for it; `compiler` compiles
it to plain data, with `text_templates` for its texts; `file_format` and `disk_cache` store that; `state_graph` plays
it, with `text_rendering` and `axioms`; `exact_game` implements `prm_gym.envs.engine_interface`. Without a proof a game
is played by stock alfworld, with a warning.
"""

from __future__ import annotations

from os import PathLike

from prm_gym.envs.engine.memory_cache import LoadedGames
from prm_gym.envs.engine.precompile import Compilation, compile_games
from prm_gym.envs.engine_interface import PlayableGame

__all__ = ["Compilation", "compile_games", "load", "set_limits"]

_loaded = LoadedGames(games=512, states=20_000)


def load(path: str | PathLike[str], *, cache: str | PathLike[str] | None = None) -> PlayableGame:
    """The game at `path`, ready to be played: from this process's memory, from the disk cache, or compiled now.

    `cache` is the folder of compiled games, see `prm_gym.envs.engine.disk_cache`. Raises `UserError` if the game file
    is missing or damaged, or has to be compiled and alfworld is not installed.
    """
    return _loaded.load(path, cache)


def set_limits(*, games: int = 512, states: int = 20_000) -> None:
    """Limit the games that this process keeps in memory, and the states cached for each. Clears the memory."""
    global _loaded
    _loaded = LoadedGames(games, states)

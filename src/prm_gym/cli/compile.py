"""`prm-gym compile`: games for the exact engine, ahead of their first use."""

from __future__ import annotations

import argparse
from pathlib import Path

from prm_gym.cli.console import console
from prm_gym.cli.parser import Commands, add_command


def add(commands: Commands) -> None:
    command = add_command(commands, "compile", "Compile the games below a folder for the exact engine.")
    command.set_defaults(run=run)
    command.add_argument("folder", type=Path)
    command.add_argument("--workers", type=int, default=1)
    command.add_argument("--cache", type=Path, help="folder for the compiled games; beside each game by default")
    command.add_argument("--strict", action="store_true", help="a damaged game is an error, not a warning")


def run(options: argparse.Namespace) -> None:
    from prm_gym.envs.engine import compile_games
    from prm_gym.envs.games import find_games

    paths = [game.path for game in find_games(options.folder, strict=options.strict)]
    console.print(compile_games(paths, workers=options.workers, cache=options.cache, strict=options.strict))

"""`prm-gym compile`: compile games for the exact engine before their first use."""

from __future__ import annotations

import argparse

from prm_gym.cli.console import say
from prm_gym.cli.flag_types import count, path
from prm_gym.cli.parser import Commands, add_command
from prm_gym.errors import UserError


def add(commands: Commands) -> None:
    command = add_command(commands, "compile", "Compile the games below a folder for the exact engine.")
    command.set_defaults(run=run)
    command.add_argument("folder", type=path, metavar="DIR", help="folder of games")
    command.add_argument("--workers", type=count, default=1, metavar="N", help="processes")
    text = "folder for the compiled games; default: beside each game"
    command.add_argument("--cache", type=path, metavar="DIR", help=text)
    command.add_argument("--strict", action="store_true", help="a damaged game is an error, not a warning")


def run(options: argparse.Namespace) -> None:
    from prm_gym.envs.engine import compile_games
    from prm_gym.envs.games import survey

    games, damaged = survey(options.folder)
    paths = sorted([*(game.path for game in games), *damaged])
    if not paths:
        raise UserError(options.folder, "no game", "check the folder, or make games with `prm-gym games`")
    done = compile_games(paths, workers=options.workers, cache=options.cache, strict=options.strict)
    for line in done.lines():
        say(line)

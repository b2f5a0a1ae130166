"""`prm-gym games`: generate households."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

from prm_gym.cli.console import say
from prm_gym.cli.flag_types import count, path, seed
from prm_gym.cli.parser import Commands, add_command
from prm_gym.errors import UserError


def add(commands: Commands) -> None:
    command = add_command(commands, "games", "Generate households in alfworld's format.")
    command.set_defaults(run=run)
    command.add_argument("out", type=path, metavar="OUT", help="folder of the games")
    command.add_argument("--preset", default="small", help="small or full, the size of the households")
    text = "how many games of each split, from train, valid_seen and valid_unseen"
    command.add_argument("--split", default="train=200,valid_seen=50,valid_unseen=50", help=text)
    command.flags["splits"] = "--split"
    command.add_argument("--seed", type=seed, default=0, help="of all games")
    command.add_argument("--workers", type=count, default=1, metavar="N", help="processes")


def run(options: argparse.Namespace) -> None:
    from prm_gym.envs.households import generate

    splits: dict[str, int] = {}
    for part in options.split.split(","):
        name, _, count = part.partition("=")
        if not count.isdigit():
            raise UserError("--split", f"'{part}' is not NAME=COUNT", "write train=200,valid_seen=50,valid_unseen=50")
        splits[name.strip()] = int(count)
    before = _there(options.out, splits)
    written = generate(options.out, preset=options.preset, splits=splits, seed=options.seed, workers=options.workers)
    there, total = ", ".join(f"{count:,} games in {split}" for split, count in written.items()), sum(written.values())
    if before == total:
        there += " already; nothing to do"
    elif before:
        there += f"; {before:,} were there already, {total - before:,} are new"
    say(f"{options.out}: {there}")


def _there(out: Path, splits: Iterable[str]) -> int:
    """How many games of the splits lie in the folder."""
    from prm_gym.envs.games import GAME_FILE

    return sum(1 for split in splits for _ in (out / split).glob(f"*/*/{GAME_FILE}"))

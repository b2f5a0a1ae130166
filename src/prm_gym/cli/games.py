"""`prm-gym games`: generated households."""

from __future__ import annotations

import argparse

from prm_gym.cli.console import console
from prm_gym.cli.parser import Commands, add_command
from prm_gym.cli.values import count, path, seed
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
    written = generate(options.out, preset=options.preset, splits=splits, seed=options.seed, workers=options.workers)
    console.print(f"{options.out}: " + ", ".join(f"{count} games in {split}" for split, count in written.items()))

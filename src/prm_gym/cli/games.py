"""`prm-gym games`: generate households."""

from __future__ import annotations

import argparse
from argparse import ArgumentTypeError
from collections.abc import Iterable
from pathlib import Path

from prm_gym.cli.console import say
from prm_gym.cli.flag_types import count, path, seed
from prm_gym.cli.parser import Commands, add_command

_USUAL = "train=200,valid_seen=50,valid_unseen=50"


def add(commands: Commands) -> None:
    command = add_command(commands, "games", "Generate households in alfworld's format.")
    command.set_defaults(run=run)
    command.add_argument("out", type=path, metavar="OUT", help="folder of the games")
    command.add_argument("--preset", default="small", help="small or full, the size of the households")
    text = "how many games of each split, from train, valid_seen and valid_unseen"
    command.add_argument("--split", type=_splits, default=_USUAL, metavar="NAME=COUNT,...", help=text)
    command.flags["splits"] = "--split"
    command.add_argument("--seed", type=seed, default=0, help="of all games")
    command.add_argument("--workers", type=count, default=1, metavar="N", help="processes")


def run(options: argparse.Namespace) -> None:
    from prm_gym.envs.households import generate

    before = _there(options.out, options.split)
    written = generate(
        options.out, preset=options.preset, splits=options.split, seed=options.seed, workers=options.workers
    )
    there, total = ", ".join(f"{count:,} games in {split}" for split, count in written.items()), sum(written.values())
    if before == total:
        there += " already; nothing to do"
    elif before:
        there += f"; {before:,} were there already, {total - before:,} are new"
    say(f"{options.out}: {there}")


def _splits(text: str) -> dict[str, int]:
    splits: dict[str, int] = {}
    for part in text.split(","):
        name, _, number = (word.strip() for word in part.partition("="))
        if not number.isdecimal():
            raise ArgumentTypeError(f"'{part}' is not NAME=COUNT; write {_USUAL}")
        if name in splits:
            raise ArgumentTypeError(f"{name} stands twice; name each split once")
        splits[name] = count(number)
    return splits


def _there(out: Path, splits: Iterable[str]) -> int:
    """How many games of the splits lie in the folder."""
    from prm_gym.envs.games import GAME_FILE

    return sum(1 for split in splits for _ in (out / split).glob(f"*/*/{GAME_FILE}"))

"""`prm-gym store check`: find and repair damaged parts of an episode store."""

from __future__ import annotations

import argparse
import shlex

from prm_gym.cli.console import say
from prm_gym.cli.flag_types import path
from prm_gym.cli.parser import Commands, add_command
from prm_gym.errors import UserError


def add(commands: Commands) -> None:
    command = add_command(commands, "store", "Check a folder of episodes for damage, and set what is damaged aside.")
    kinds = command.add_subparsers(required=True, metavar="check")
    check = add_command(kinds, "check", "Read every part; say which are damaged, and what is lost by it.")
    check.set_defaults(run=run)
    check.add_argument("folder", type=path, metavar="DIR", help="folder of episodes")
    text = "rename damaged parts to *.damaged and keep their whole episodes; nothing is deleted"
    check.add_argument("--repair", action="store_true", help=text)


def run(options: argparse.Namespace) -> None:
    from prm_gym.store.check import check, remedy, repair

    folder = options.folder
    found, done = repair(folder) if options.repair else (check(folder), [])
    for line in [*found.lines(), *done]:
        say(line)
    damaged = len(found.damaged)
    if not damaged:
        return
    if done:
        say(remedy(folder))
        return
    how = f"`prm-gym store check {shlex.quote(str(folder))} --repair` sets {'it' if damaged == 1 else 'them'} aside"
    raise UserError(folder, f"{damaged:,} of {damaged + found.sound_parts:,} parts damaged", how)

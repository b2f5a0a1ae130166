"""`prm-gym host prepare`: prepare an open-instruct checkout."""

from __future__ import annotations

import argparse

from prm_gym.cli.console import say
from prm_gym.cli.flag_types import path
from prm_gym.cli.parser import Commands, add_command


def add(commands: Commands) -> None:
    command = add_command(commands, "host", "Prepare an open-instruct checkout, or undo it.")
    command.set_defaults(run=run)
    text = "prepare: check that the checkout is the pinned commit, and patch it"
    command.add_argument("action", choices=["prepare"], metavar="ACTION", help=text)
    command.add_argument("checkout", type=path, metavar="DIR", help="folder of the checkout")
    command.add_argument("--undo", action="store_true", help="take the patches back")


def run(options: argparse.Namespace) -> None:
    from prm_gym.hosts.open_instruct.prepare import prepare

    for line in prepare(options.checkout, undo=options.undo):
        say(line)

"""`prm-gym host prepare`: an open-instruct checkout made ready."""

from __future__ import annotations

import argparse
from pathlib import Path

from prm_gym.cli.console import console
from prm_gym.cli.parser import Commands, add_command


def add(commands: Commands) -> None:
    command = add_command(commands, "host", "Prepare an open-instruct checkout, or undo it.")
    command.set_defaults(run=run)
    command.add_argument("action", choices=["prepare"])
    command.add_argument("checkout", type=Path)
    command.add_argument("--undo", action="store_true")


def run(options: argparse.Namespace) -> None:
    from prm_gym.hosts.open_instruct.prepare import prepare

    for line in prepare(options.checkout, undo=options.undo):
        console.print(line, highlight=False)

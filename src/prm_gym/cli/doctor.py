"""`prm-gym doctor`: what this environment can do."""

from __future__ import annotations

import argparse

from prm_gym.cli.console import console
from prm_gym.cli.parser import Commands, add_command


def add(commands: Commands) -> None:
    command = add_command(commands, "doctor", "What this environment can do, and what is missing for the rest.")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    from prm_gym.cli.installation import report

    console.print(report())

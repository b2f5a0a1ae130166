"""The flags of commands that work on the run of a recipe."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from prm_gym.cli.flag_types import path
from prm_gym.cli.parser import Parser


def add_run(command: Parser, text: str) -> None:
    """Add --run, described by `text`, and --host."""
    text += "; default: runs/NAME, by the name of the recipe"
    command.add_argument("--run", dest="run_folder", type=path, metavar="DIR", help=text)
    text = "the framework that trains; default: the recipe's"
    command.add_argument("--host", choices=["trl", "open-instruct"], help=text)


def run_folder(options: argparse.Namespace) -> Path:
    """The folder of --run, or of the recipe's name, which a recipe given as `.` has too."""
    given: Path | None = options.run_folder
    return given or Path("runs") / os.path.basename(os.path.abspath(options.recipe))

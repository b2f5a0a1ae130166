"""`prm-gym iter`: one iteration of a recipe."""

from __future__ import annotations

import argparse
from pathlib import Path

from prm_gym.cli.console import console
from prm_gym.cli.parser import Commands, add_command


def add(commands: Commands) -> None:
    text = "One iteration of Algorithm 1, as a recipe says; goes on where it was stopped."
    command = add_command(commands, "iter", text)
    command.set_defaults(run=run)
    command.add_argument("iteration", type=int)
    command.add_argument("--recipe", type=Path, required=True)
    command.add_argument("--run", dest="run_folder", type=Path, help="default: runs/<recipe's name>")
    command.add_argument("--host", choices=["trl", "open-instruct"], help="in place of the recipe's host")


def run(options: argparse.Namespace) -> None:
    from prm_gym import evaluate, stage
    from prm_gym.iterate import Run

    folder = options.run_folder or Path("runs") / options.recipe.name
    stage.run(Run(options.recipe, folder, options.iteration, options.host).stages(), console)
    console.print(evaluate.table(evaluate.read_results(folder / "results.json")))

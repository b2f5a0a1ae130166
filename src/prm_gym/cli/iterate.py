"""`prm-gym iter`: one iteration of a recipe."""

from __future__ import annotations

import argparse
from pathlib import Path

from prm_gym.cli.console import console
from prm_gym.cli.parser import Commands, add_command
from prm_gym.cli.values import count, path


def add(commands: Commands) -> None:
    text = "One iteration of Algorithm 1, as a recipe says; goes on where it was stopped."
    command = add_command(commands, "iter", text)
    command.set_defaults(run=run)
    text = "n: makes Q_{n-1} and pi_n of pi_{n-1}; 1 makes pi_0 first"
    command.add_argument("iteration", type=count, metavar="ITERATION", help=text)
    command.add_argument("--recipe", type=path, required=True, metavar="DIR", help="folder of the recipe")
    text = "folder of the run; default: runs/NAME, by the name of the recipe"
    command.add_argument("--run", dest="run_folder", type=path, metavar="DIR", help=text)
    text = "the framework that trains; default: the recipe's"
    command.add_argument("--host", choices=["trl", "open-instruct"], help=text)


def run(options: argparse.Namespace) -> None:
    from prm_gym import evaluate, stage
    from prm_gym.iterate import Run

    folder = options.run_folder or Path("runs") / options.recipe.name
    stage.run(Run(options.recipe, folder, options.iteration, options.host).stages(), console)
    console.print(evaluate.table(evaluate.read_results(folder / "results.json")))

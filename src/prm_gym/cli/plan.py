"""`prm-gym plan`: what an iteration of a recipe will take, from measured costs, and what would fail late."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from prm_gym.cli.console import console, say
from prm_gym.cli.flag_types import integer, path
from prm_gym.cli.parser import Commands, add_command
from prm_gym.cli.run_flags import add_run, run_folder
from prm_gym.errors import UserError

if TYPE_CHECKING:
    from prm_gym.runs.forecast import Expected, Forecast


def add(commands: Commands) -> None:
    text = "What an iteration will take (requests, tokens, disk, GPU hours, hours), and what would fail late."
    described = text + " It makes the iteration twice at a small size, beside the run folder, and removes both."
    command = add_command(commands, "plan", text, description=described)
    command.set_defaults(run=run, resumes=False)
    command.add_argument("recipe", type=path, metavar="RECIPE", help="folder of the recipe")
    command.add_argument("--iteration", type=integer(), default=1, metavar="N", help="makes pi_n of pi_{n-1}")
    add_run(command, "folder of the run; its pi_{n-1}, if there, is probed")


def run(options: argparse.Namespace) -> None:
    from prm_gym.runs.forecast import forecast
    from prm_gym.runs.iteration import Run
    from prm_gym.runs.late_failures import problems

    folder = run_folder(options)
    iteration = Run(options.recipe, folder, options.iteration, options.host)
    found = forecast(iteration, lambda text: say(text, style="dim"))
    _show(found)
    wrong = problems(iteration, found)
    for each in wrong:
        say(f"problem: {each}", style="red")
    if wrong:
        raise UserError(options.recipe, f"{len(wrong)} problems, listed above", "correct them before the run")


def _show(found: Forecast) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, padding=0, show_edge=False, show_footer=True)
    table.add_column("Stage", "all", overflow="fold")
    for column, total in zip(_COLUMNS, _cells(found.stages), strict=True):
        table.add_column(column, total, justify="right")
    for each in found.stages:
        table.add_row(each.stage.name, *_cells([each]))
    console.print(table)
    say(f"Measured in {found.seconds:,.0f} s. The disk takes {found.disk / 1e6:,.0f} MB/s.")


_COLUMNS = ("Requests", "Prompt tokens", "Response tokens", "GB", "CPU hours", "GPU hours", "Hours")


def _cells(stages: list[Expected]) -> list[str]:
    names = ("requests", "prompt_tokens", "response_tokens")
    counts = [f"{count:,}" if (count := sum(getattr(each, name) for each in stages)) else "" for name in names]
    times = [
        sum(values) for values in zip(*((e.cpu / 3600, e.gpu_hours, e.seconds / 3600) for e in stages), strict=True)
    ]
    return [*counts, f"{sum(each.size for each in stages) / 1e9:,.3f}", *(f"{hours:,.3f}" for hours in times)]

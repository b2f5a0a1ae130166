"""`prm-gym iter`: one iteration of a recipe."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from prm_gym.cli.console import console, say
from prm_gym.cli.flag_types import integer, path
from prm_gym.cli.parser import Commands, add_command
from prm_gym.cli.run_flags import add_run, run_folder

if TYPE_CHECKING:
    from prm_gym.runs.stage import Stage


def add(commands: Commands) -> None:
    text = "One iteration of Algorithm 1, as a recipe says; goes on where it was stopped."
    command = add_command(commands, "iter", text)
    command.set_defaults(run=run)
    text = "n: makes Q_{n-1} and pi_n of pi_{n-1}; 1 makes pi_0 first, 0 makes pi_0 alone"
    command.add_argument("iteration", type=integer(least=0), metavar="ITERATION", help=text)
    command.add_argument("--recipe", type=path, required=True, metavar="DIR", help="folder of the recipe")
    add_run(command, "folder of the run")
    text = "show the stages, which are complete, and what is left to do; nothing is run"
    command.add_argument("--dry-run", action="store_true", help=text)


def run(options: argparse.Namespace) -> None:
    from prm_gym.evaluation.results_file import read_results
    from prm_gym.evaluation.results_table import table
    from prm_gym.runs import stage
    from prm_gym.runs.iteration import Run
    from prm_gym.store.writer_lock import WriterLock

    folder = run_folder(options)
    iteration = Run(options.recipe, folder, options.iteration, options.host)
    stages = iteration.stages()
    if options.dry_run:
        _show(stages, folder)
        return
    folder.mkdir(parents=True, exist_ok=True)
    with WriterLock(folder), iteration.servers:
        stage.run(stages, console)
    if options.iteration > 0:
        console.print(table(read_results(folder / "results.json")))


def _show(stages: list[Stage], folder: Path) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from prm_gym.runs.dry_run import plan

    planned = plan(stages, folder)
    table = Table(box=SIMPLE_HEAD, padding=0, show_edge=False)
    for column in ("Stage", "", "Rows, at most", "Disk, about"):
        table.add_column(column, justify="left" if column in ("Stage", "") else "right", overflow="fold")
    for each in planned:
        rows = "" if each.rows is None else f"{each.rows:,}"
        disk = "" if each.disk is None else f"{each.disk / 1e6:,.1f} MB"
        table.add_row(each.stage.name, "complete" if each.complete else "to do", rows, disk)
    console.print(table)
    say("Rows: every episode to the step limit. Disk: by the bytes a row of the stores here; by a training's model.")
    up: tuple[str, ...] = ()
    for each in planned:
        cost = each.stage.cost
        if each.complete:
            continue
        if cost.servers and cost.servers != up:
            say(f"\nServers from {each.stage.name} on, on this machine:\n" + "\n".join(cost.servers))
        up = () if each.command else cost.servers or up
        if each.command:
            say(f"\n{each.stage.name}, with its config written at its start:\n{each.command}")
        for number, command in enumerate(cost.nodes):
            say(f"on node {number}: {shlex.join(command)}")

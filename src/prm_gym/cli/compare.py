"""`prm-gym compare`: the differences between the results of two runs, with intervals."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from prm_gym.cli.console import console, say, visible
from prm_gym.cli.flag_types import path
from prm_gym.cli.parser import Commands, add_command

if TYPE_CHECKING:
    from prm_gym.report.paired_difference import Difference


def add(commands: Commands) -> None:
    text = "The differences between two runs' results, paired by game, with intervals."
    command = add_command(commands, "compare", text)
    command.set_defaults(run=run)
    command.add_argument("one", type=path, metavar="RUN", help="folder of a run or of evaluations")
    command.add_argument("other", type=path, metavar="RUN", help="another; a difference is its result less the first's")


def run(options: argparse.Namespace) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    from prm_gym.report.comparison import compare

    found = compare(options.one, options.other)
    title = Text(visible(f"{options.other} less {options.one} (95% intervals)"))
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=0, show_edge=False)
    table.add_column("Policy and split", overflow="fold")
    for column in ("First %", "Second %", "Points", "Actions", "Games"):
        table.add_column(column, justify="right")
    for each in found:
        table.add_row(
            Text(visible(f"{each.name}, {each.settings}" if each.settings else each.name)),
            *(f"{100 * entry['success']:.1f}" for entry in (each.one, each.other)),
            _said(each.success, 100),
            _said(each.actions, 1),
            "not paired" if each.success.games is None else f"{each.success.games:,} paired",
        )
    console.print(table)
    if any(not each.success.enough for each in found):
        from prm_gym.report.paired_difference import LEAST_DIFFERING

        say(f"No interval where fewer than {LEAST_DIFFERING} games were decided differently.")
    if any(each.success.games is None for each in found):
        say("Not paired: the runs played other games, or the episodes of one are not there; the intervals are wider.")


def _said(difference: Difference | None, scale: float) -> str:
    if difference is None:
        return "-"
    mean, low, high = (scale * value for value in (difference.mean, difference.low, difference.high))
    return f"{mean:+.1f} ({low:+.1f} to {high:+.1f})" if difference.enough else f"{mean:+.1f}"

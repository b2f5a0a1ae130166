"""`prm-gym report`: an HTML report on runs."""

from __future__ import annotations

import argparse

from prm_gym.cli.console import say
from prm_gym.cli.flag_types import integer, path
from prm_gym.cli.parser import Commands, add_command


def add(commands: Commands) -> None:
    command = add_command(commands, "report", "What runs achieved, as one HTML file.")
    command.set_defaults(run=run)
    command.add_argument("runs", type=path, nargs="+", metavar="RUN", help="folders of runs or evaluations")
    text = "the file to write; default: report.html in the first run"
    command.add_argument("--out", type=path, metavar="FILE", help=text)
    text = "episodes to read, of each evaluation"
    command.add_argument("--episodes", type=integer(0), default=12, metavar="N", help=text)


def run(options: argparse.Namespace) -> None:
    from prm_gym.report import write

    out = options.out or options.runs[0] / "report.html"
    write(options.runs, out, episodes=options.episodes, tell=say)
    say(f"{out}: {out.stat().st_size / 1e6:.1f} MB")

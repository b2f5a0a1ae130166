"""`prm-gym score`: Q of every action of stored episodes, or of a JSONL file of chats."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any

from prm_gym.cli.console import console, say
from prm_gym.cli.flag_types import path
from prm_gym.cli.parser import Commands, add_command, refuse_idle
from prm_gym.cli.prm_flag import add_prompt, make_prm, prompt_of
from prm_gym.errors import UserError


def add(commands: Commands) -> None:
    command = add_command(commands, "score", "Q of every action of stored episodes, or of every chat in a JSONL file.")
    command.set_defaults(run=run, resumes=False)
    add = command.add_argument
    text = 'folders of episodes, or one JSONL file with a {"messages": [...]} a line'
    add("folders", type=path, nargs="+", metavar="SOURCE", help=text)
    add("--prm", type=path, required=True, metavar="DIR", help="the PRM, a one-logit classifier")
    text = "file to write, .parquet or .jsonl, with a row for each action: q and logit beside what it is of"
    add("--out", type=path, required=True, metavar="FILE", help=text)
    add_prompt(command)


def run(options: argparse.Namespace) -> None:
    from rich.progress import track

    from prm_gym.inference.model_location import check_model
    from prm_gym.prm.batch_scoring import FORMATS, of_chats, of_episodes, score

    if options.out.suffix not in FORMATS or options.out.is_dir():
        raise UserError("out", f"'{options.out}' is no {' or '.join(FORMATS)} file", "name one")
    [first, *others] = options.folders
    if first.is_file():
        refuse_idle(options, ("prompt", "force"), "with a file of chats")
        if others:
            raise UserError("SOURCE", f"{first} and {len(others)} more", "name one file of chats, or folders")
        check_model(options.prm, "prm")
        source, prompt = of_chats(first), None
    else:
        prompt = prompt_of(options)
        source = of_episodes(options.folders, prompt)
    prm = make_prm(options, prompt)
    options.out.parent.mkdir(parents=True, exist_ok=True)

    def shown(rows: Iterable[Any]) -> Iterable[Any]:
        return track(rows, "actions", source.total, console=console, transient=True)

    rows, too_long = score(source, prm, options.out, track=shown)
    say(f"{options.out}: Q of {rows:,} actions" + (f", {too_long:,} of them too long for it" if too_long else ""))

"""`prm-gym COMMAND`: a module for each command, named after it.

The module of a command has `add`, which declares its flags, and `run`. `policy_flags` has the flags of the commands
that play games, `parser` the argument parser. The library is imported only when a command runs.
"""

from __future__ import annotations

import argparse
import io
import logging
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import prm_gym
from prm_gym.cli import (
    compare,
    compile,
    doctor,
    evaluate,
    games,
    host,
    iterate,
    label,
    model,
    plan,
    play,
    report,
    rollout,
    score,
    show,
    store,
    world,
)
from prm_gym.cli.parser import Parser, add_verbose, named_as_flags
from prm_gym.errors import UserError, of_system
from prm_gym.quiet import hushed

_COMMANDS = (
    games, compile, play, rollout, show, score, label, model, evaluate, world, compare, report, plan, iterate, store,
    host, doctor,
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit status: 2 for input that cannot be used, 130 for Ctrl-C."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: file names may be undecodable
    parser = _parser()
    if "_ARGCOMPLETE" in os.environ:  # a shell asks for completions (the extra `completion`)
        import argcomplete

        argcomplete.autocomplete(parser)
    try:
        options = parser.parse_args(arguments)
    except SystemExit as end:  # after the help, the version or an error
        return int(end.code or 0)
    if not options.verbose:
        with hushed():
            return _run(options)
    logging.basicConfig(level=logging.INFO)
    return _run(options)


def _run(options: argparse.Namespace) -> int:
    try:
        run: Callable[[argparse.Namespace], None] = options.run
        run(options)
    except UserError as error:
        if options.verbose:
            traceback.print_exc()
        print(f"error: {named_as_flags(error, options.parser.flags)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        remedy = "the same command goes on from here" if getattr(options, "resumes", True) else "nothing was written"
        print(f"interrupted; {remedy}", file=sys.stderr)
        return 130
    except Exception as error:
        told = of_system(error, _place(options))
        if told is None:
            raise
        if options.verbose:
            traceback.print_exc()
        print(f"error: {told}", file=sys.stderr)
        return 2
    return 0


def _place(options: argparse.Namespace) -> Path:
    """The file or folder that the command writes, or else reads."""
    named = [getattr(options, name, None) for name in ("out", "run_folder", "folder", "checkout")]
    named += [*getattr(options, "runs", []), *getattr(options, "folders", [])]
    return next((path for path in named if path), Path.cwd())


def _parser() -> Parser:
    parser = Parser(prog="prm-gym", description="Stage 1 of AgentPRM and InversePRM, and its hosts.")
    parser.add_argument("--version", action="version", version=f"prm-gym {prm_gym.__version__}")
    add_verbose(parser)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in _COMMANDS:
        command.add(commands)
    return parser

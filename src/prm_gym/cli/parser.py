"""The argument parser of all commands: help with all defaults, and errors in one line."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Any, NoReturn, TypeAlias

from prm_gym.errors import UserError


class _Help(argparse.RawDescriptionHelpFormatter):
    """Shows the default of every flag that has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.nargs == 0 or action.default in (None, (), argparse.SUPPRESS) or "default:" in (action.help or ""):
            return action.help
        return f"{action.help}; default: %(default)s"


class Parser(argparse.ArgumentParser):
    """Abbreviated flags are not accepted, since a new flag could change their meaning.

    `flags` maps parameters to flags: {"max_games": "--max-games"}. `fill` adds the arguments when the parser is first
    used, for a command whose flags need slow imports.
    """

    def __init__(self, *, fill: Callable[[Parser], None] | None = None, **options: Any) -> None:
        self.flags: dict[str, str] = {}
        self._fill = fill
        super().__init__(**{"allow_abbrev": False, "formatter_class": _Help, **options})

    def add_argument(self, *names: Any, **options: Any) -> argparse.Action:
        action = super().add_argument(*names, **options)
        self.flags[action.dest] = action.option_strings[-1] if action.option_strings else str(action.metavar)
        return action

    def filled(self) -> Parser:
        """This parser, with all its arguments."""
        fill, self._fill = self._fill, None
        if fill is not None:
            fill(self)
        return self

    def format_help(self) -> str:
        self.filled()
        return super().format_help()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        self.filled()
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:  # an error here, where the command's flags are known
            near = get_close_matches(unknown[0].partition("=")[0], self.flags.values(), 1)
            self.error(f"{unknown[0]}: not known here" + (f"; the nearest is {near[0]}" if near else ""))
        return found, unknown

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message.removeprefix('argument ')}; see `{self.prog} -h`\n")


Commands: TypeAlias = "argparse._SubParsersAction[Parser]"


def add_command(commands: Commands, name: str, text: str, **options: Any) -> Parser:
    """A command's parser. `text` is its line in the list of commands and, by default, its description."""
    command = commands.add_parser(name, help=text, **{"description": text, **options})
    command.set_defaults(parser=command)
    add_verbose(command, default=argparse.SUPPRESS)  # -v may stand before the command or behind it
    return command


def add_verbose(parser: Parser, default: Any = False) -> None:
    text = "show tracebacks, and the logs and progress bars of the libraries"
    parser.add_argument("-v", "--verbose", action="store_true", default=default, help=text)


def refuse_idle(options: argparse.Namespace, names: Iterable[str], why: str) -> None:
    """Raise `UserError` for the first given flag of `names`, which has no effect `why` ("without --prm")."""
    for name in names:
        if getattr(options, name) not in (None, False):
            raise UserError(name, f"has no effect {why}", "leave it out")


def flags_alone(options: argparse.Namespace) -> argparse.Namespace:
    """The values of the flags without the parser and the command's function, for other processes."""
    return argparse.Namespace(**{name: value for name, value in vars(options).items() if name not in ("parser", "run")})


def named_as_flags(error: UserError, flags: dict[str, str]) -> UserError:
    """The error with the flag instead of the parameter that the library names."""
    if isinstance(error.where, str) and error.where in flags:
        return UserError(flags[error.where], error.problem, error.remedy, field=error.field)
    return error

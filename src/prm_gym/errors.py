"""`UserError`, the only exception meant for users: a single line that names file, field and remedy.

The library names its parameters (`max_games`); `prm_gym.cli` replaces them by flags (`--max-games`), prints the line
without a traceback and exits with status 2, as `run_program` does for other programs. `of_system` turns errors of the
operating system and of DuckDB into it, and missing packages of the extra `trl`.
Every other exception is a bug and keeps its traceback.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable
from functools import partial
from os import PathLike
from pathlib import Path

_OF_TRL = ("torch", "transformers", "trl")  # imported when they are used, in many places
INT32, INT64 = 2**31 - 1, 2**63 - 1  # the largest turn, iteration or count, and the largest seed
HOTTEST = 100.0  # the highest sampling temperature; all tokens are about equally likely there


class UserError(Exception):
    """Unusable input. `where` is the parameter, file or folder, `field` the entry in it, if any."""

    where: str | PathLike[str]

    def __init__(
        self, where: str | PathLike[str] | UserError, problem: str = "", remedy: str = "", *, field: str | None = None
    ) -> None:
        if isinstance(where, UserError):  # gymnasium's AsyncVectorEnv raises `type(error)(error)`
            super().__init__(*where.args)
            vars(self).update(vars(where))
            return
        super().__init__(where, problem, remedy)
        self.where, self.problem, self.remedy, self.field = where, problem, remedy, field

    def __str__(self) -> str:
        place = f"{self.where}: {self.field}" if self.field else f"{self.where}"
        return f"{place}: {self.problem}; {self.remedy}"

    def __reduce__(self) -> tuple[Callable[..., UserError], tuple[str | PathLike[str], str, str]]:
        return partial(UserError, field=self.field), (self.where, self.problem, self.remedy)


def check_range(
    name: str, value: float, *, above: float = -math.inf, least: float = -math.inf, most: float = math.inf
) -> None:
    """Raise `UserError` for parameter `name` unless above < value and least <= value <= most. NaN is never in range."""
    if above < value and least <= value <= most:
        return
    bounds = [f"above {above}"] if above > -math.inf else [f"at least {least}"] if least > -math.inf else []
    bounds += [f"at most {most}"] if most < INT32 or (most < math.inf and not value <= most) else []
    raise UserError(name, f"got {value}", f"must be {' and '.join(bounds)}")


def no_folder(path: Path) -> str:
    """Why `path`, which is no folder, cannot be read as one."""
    return "is a file and no folder" if path.exists() else "no such folder"


def of_system(error: Exception, where: str | PathLike[str]) -> UserError | None:
    """An error of the operating system, Arrow or DuckDB, or a missing package, as a `UserError`; None for a bug.

    `where` is the file or folder that was read or written, for errors that name none.
    """
    if isinstance(error, UserError):
        return error
    if isinstance(error, ModuleNotFoundError) and error.name in _OF_TRL:
        return UserError(error.name, "is not installed", "pip install 'prm-gym[trl]'")
    if isinstance(error, OSError):
        # Arrow has its own text for a full disk; Python's network errors have their own numbers
        said = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or first_line(error)
        return UserError(error.filename or where, said, "check the path, its rights and free space")
    duckdb = sys.modules.get("duckdb")
    if duckdb is None or not isinstance(error, duckdb.Error):
        return None
    if isinstance(error, duckdb.ParserException | duckdb.BinderException | duckdb.CatalogException):
        return None
    if isinstance(error, duckdb.OutOfMemoryException):
        return UserError(where, first_line(error), "free memory, or take fewer episodes")
    return UserError(where, first_line(error), "check the path, its rights and free space")


def run_program(main: Callable[[], None]) -> None:
    """Call `main`. A `UserError` is printed as one line, and ends the process with status 2."""
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def first_line(error: BaseException) -> str:
    """The first line of the message of `error`, or the name of its type if it is empty."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)

"""The one exception a user is meant to see: a single line that names file, field and remedy.

`prm_gym.cli` prints it without a traceback and exits with status 2; everything else is a bug and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike


class UserError(Exception):
    """Input that cannot be used. `where` is the file (or folder, or flag), `field` the entry in it if any."""

    def __init__(self, where: str | PathLike[str], problem: str, remedy: str, *, field: str | None = None) -> None:
        place = f"{where}: {field}" if field else f"{where}"
        super().__init__(f"{place}: {problem}; {remedy}")

    def __reduce__(self) -> tuple[Callable[[str], UserError], tuple[str]]:
        return _said, (str(self),)  # so that it comes back from another process


def _said(text: str) -> UserError:
    error = UserError.__new__(UserError)
    Exception.__init__(error, text)
    return error

"""The folders that a label function takes, as texts or `Path`s: several or one."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from os import PathLike
from pathlib import Path
from typing import ParamSpec, TypeVar

_SEVERAL = ("rollouts", "expert", "exploring")
FOLDERS = (*_SEVERAL, "values", "value_fn")  # arguments that name folders; the last may be a function too
P = ParamSpec("P")
T = TypeVar("T")


def one_or_more_folders(label: Callable[P, T]) -> Callable[P, T]:
    """Let a label function take all folders as texts, and one in place of several; the function gets `Path`s."""
    signature = inspect.signature(label)

    @wraps(label)
    def with_paths(*args: P.args, **kwargs: P.kwargs) -> T:
        given = signature.bind(*args, **kwargs)
        for name in _SEVERAL:
            if folders := given.arguments.get(name):
                one = isinstance(folders, str | PathLike)
                given.arguments[name] = [Path(folder) for folder in ([folders] if one else folders)]
        if values := given.arguments.get("values"):
            given.arguments["values"] = Path(values)
        return label(*given.args, **given.kwargs)

    return with_paths

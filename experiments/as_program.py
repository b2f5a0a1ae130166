"""The end of a program that a user's mistake stops: one line, and status 2."""

from __future__ import annotations

import sys
from collections.abc import Callable

from prm_gym.errors import UserError


def run(main: Callable[[], None]) -> None:
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)

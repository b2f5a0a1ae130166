"""A pool of spawned worker processes, limited to the work, with a one-line error if a worker dies."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import current_process, get_context
from typing import Any

from prm_gym.errors import UserError

MOST_PROCESSES = 1024


@contextmanager
def spawned(
    processes: int,
    jobs: int | None = None,
    *,
    initializer: Callable[..., object] | None = None,
    initargs: tuple[Any, ...] = (),
) -> Iterator[ProcessPoolExecutor]:
    """A pool of `processes` workers; with `jobs`, at most one per job and per processor.

    Workers are spawned, not forked: a fork would copy locks held by the caller's threads (torch, an event loop). A
    spawned worker imports the calling script. If that starts the work outside of `if __name__ == "__main__":`, the
    worker exits here silently.

    Raises `UserError` when a worker dies.
    """
    if getattr(current_process(), "_inheriting", False):  # set by multiprocessing while it imports the script
        sys.exit(1)
    if jobs is not None:
        processes = max(1, min(processes, jobs, os.cpu_count() or 1))
    try:
        with ProcessPoolExecutor(processes, get_context("spawn"), initializer, initargs) as pool:
            yield pool
    except BrokenProcessPool:
        remedy = 'a script must start the work below `if __name__ == "__main__":`; if it does, use fewer'
        raise UserError("processes", "one of them died", remedy) from None

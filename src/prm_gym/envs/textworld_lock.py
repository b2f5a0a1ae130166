"""The lock around TextWorld, its parsers and the PDDL translator, which hold global state and are not thread-safe."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.RLock()


@contextmanager
def exclusive() -> Iterator[None]:
    """Admit one caller of the process at a time, and restore `sys.argv`, which the translator overwrites."""
    with _lock:
        argv = sys.argv
        try:
            yield
        finally:
            sys.argv = argv

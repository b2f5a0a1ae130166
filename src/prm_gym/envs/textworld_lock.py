"""The one door to TextWorld, its parsers and the PDDL translator: all hold global state and are not thread-safe."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.RLock()


@contextmanager
def exclusive() -> Iterator[None]:
    """One caller of the process at a time; `sys.argv`, which the translator overwrites, is put back."""
    with _lock:
        argv = sys.argv
        try:
            yield
        finally:
            sys.argv = argv

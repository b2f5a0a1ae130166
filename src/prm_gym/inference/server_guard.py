"""Runs a server, and ends it with the process that asked for it, however that ends (SIGKILL included).

    python server_guard.py PARENT COMMAND...

The guard leads a process group of its own, so Ctrl-C in a terminal does not reach the server. When the process with the
id PARENT is gone, or the guard gets SIGTERM, the group gets SIGTERM and after `GRACE` seconds SIGKILL: the server, its
workers and whatever a wrapper script has started. When the server ends by itself, the rest of its group is killed too.
On Linux the server is also killed if the guard is (PR_SET_PDEATHSIG, man 2 prctl).

This file runs as a script and imports nothing of the package.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time

GRACE = 30.0  # seconds from SIGTERM to SIGKILL
_POLL = 0.2
_PR_SET_PDEATHSIG = 1  # <sys/prctl.h>
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None  # loaded before the fork


def main(parent: int, command: list[str]) -> None:
    """Run `command` until it ends or has to end. Kills the group, this process included."""
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, _: asked.append(number))
    try:
        server = subprocess.Popen(command, preexec_fn=_end_with_guard)
    except OSError as error:
        sys.exit(f"{command[0]}: {error.strerror}")
    while server.poll() is None and not asked and os.getppid() == parent:
        time.sleep(_POLL)
    if server.returncode is None:
        os.killpg(0, signal.SIGTERM)
        try:
            server.wait(GRACE)
        except subprocess.TimeoutExpired:
            print(f"{command[0]}: still there {GRACE:.0f} s after SIGTERM, killed", file=sys.stderr)
    else:
        print(f"{command[0]}: ended with status {server.returncode}", file=sys.stderr)
    sys.stderr.flush()
    os.killpg(0, signal.SIGKILL)


def _end_with_guard() -> None:
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])

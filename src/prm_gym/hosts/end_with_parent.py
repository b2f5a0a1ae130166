"""A training process must not outlive the command that started it, which may be killed with -9.

Linux alone can do that in the kernel (`prctl(PR_SET_PDEATHSIG)`, man 2 prctl). On other systems a training whose parent
was killed runs on: end it by hand before the command is given again.
"""

from __future__ import annotations

import ctypes
import signal
import sys

_PR_SET_PDEATHSIG = 1  # <sys/prctl.h>
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None  # loaded before any fork


def end_with_parent(signal_number: int = signal.SIGKILL) -> None:
    """Have the kernel send this process a signal as soon as the thread that started it ends. Kept across exec.

    Called between fork and exec (`subprocess.Popen(preexec_fn=...)`), or by the process itself.
    """
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal_number)

"""How a training process ends: with the command that started it, and without leftover threads of torch.distributed.

Only Linux can end a process with its parent (`prctl(PR_SET_PDEATHSIG)`, man 2 prctl), even if that was killed with -9.
On other systems such a training runs on: end it by hand before giving the command again.
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


def leave_process_group() -> None:
    """Join the threads of torch.distributed, after a stage that succeeded.

    Gloo's threads abort the process if they free a tensor while Python shuts down. There is no barrier: nothing is left
    to exchange, and waiting for a process that failed would hang.
    """
    import torch.distributed

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()

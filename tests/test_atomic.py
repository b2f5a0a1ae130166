"""A lock keeps out other processes and other threads, and ends with its holder."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from threading import Thread

from waiting import until

from prm_gym.atomic import locked

HOLD = "import sys, time, pathlib; from prm_gym.atomic import locked\nwith locked(pathlib.Path(sys.argv[1])): {}"


def test_a_lock_waits_for_another_process_and_not_for_a_dead_one(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    command = [sys.executable, "-c", HOLD.format("print('held', flush=True); time.sleep(60)"), str(lock)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        entered: list[bool] = []

        def enter() -> None:
            with locked(lock):
                entered.append(True)

        waiting = Thread(target=enter, daemon=True)
        waiting.start()
        waiting.join(0.3)
        assert not entered
        holder.send_signal(signal.SIGKILL)
        assert until(lambda: bool(entered))

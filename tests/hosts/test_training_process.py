"""A training started by `hosts.launch` ends when the launching process is killed with SIGKILL."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import is_running, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="prctl(PR_SET_PDEATHSIG) is Linux's")

# Stands in for a host: says which process it is, and that it would train for a minute. Several of it are started by
# torch.distributed.run, as those of a real host are.
HOST = """
import os, sys, time
from pathlib import Path
if "LOCAL_RANK" in os.environ:
    from prm_gym.hosts.training_process import end_with_parent
    end_with_parent()
Path(sys.argv[-1]).with_name(f"pid-{os.getpid()}").touch()
time.sleep(60)
"""
LAUNCHER = """
import sys
from pathlib import Path
from prm_gym import hosts
config = Path(sys.argv[1])
hosts.MODULES["trl"] = "sleeping_host"
hosts.launch("trl", "sft", config, config.parent, hosts.Machines(processes=int(sys.argv[2])))
"""


@pytest.mark.parametrize("processes", [1, 2])
def test_kill_9_of_the_launcher_ends_the_training(tmp_path: Path, processes: int) -> None:
    if processes > 1:
        pytest.importorskip("torch", reason="needs the extra 'trl'")
    (tmp_path / "sleeping_host.py").write_text(HOST)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    launcher = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, str(tmp_path / "sft.yaml"), str(processes)],
        env={**os.environ, "PYTHONPATH": path},
    )
    children: list[int] = []
    try:
        assert until(lambda: len(list(tmp_path.glob("pid-*"))) == processes, 120)
        children = [int(file.name.removeprefix("pid-")) for file in tmp_path.glob("pid-*")]
        assert all(map(is_running, children))
        launcher.send_signal(signal.SIGKILL)
        launcher.wait()
        assert until(lambda: not any(map(is_running, children)), 10)
    finally:
        launcher.kill()
        for pid in filter(is_running, children):
            os.kill(pid, signal.SIGKILL)

"""Worker processes: at most one for each piece of work, and one line when one dies."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from prm_gym import worker_pool
from prm_gym.errors import UserError
from prm_gym.worker_pool import spawned

SCRIPT = """
from pathlib import Path
import sys
from rollout_world import Corridor, Walker, make_games
from prm_gym.rollout import in_processes, rollout

def collect(out, share):
    return rollout(make_games(2), Walker(), out, share=share, make_env=Corridor, progress=False)

in_processes(collect, Path(sys.argv[1]), 2)
"""


def test_a_script_without_a_main_guard_is_told_in_one_line(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    path = os.pathsep.join([str(Path(__file__).parent / "rollout"), *sys.path])
    run = subprocess.run(
        [sys.executable, script, tmp_path / "out"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert run.returncode == 1
    assert run.stderr.count("Traceback") == 1  # of the script itself, not of its processes
    assert run.stderr.splitlines()[-1] == (
        "prm_gym.errors.UserError: processes: one of them died; "
        'a script must start the work below `if __name__ == "__main__":`; if it does, use fewer'
    )


def test_a_process_that_dies_is_an_error_in_one_line() -> None:
    with pytest.raises(UserError, match="processes: one of them died"), spawned(1) as processes:
        processes.submit(os._exit, 9).result()


@pytest.mark.parametrize(("asked", "jobs", "made"), [(10**9, 3, 3), (10**9, 99, 8), (2, 99, 2), (4, 0, 1)])
def test_there_are_no_more_processes_than_jobs_or_processors(
    monkeypatch: pytest.MonkeyPatch, asked: int, jobs: int, made: int
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(worker_pool, "ProcessPoolExecutor", lambda count, *_: _Counted(count))
    with spawned(asked, jobs) as processes:
        assert processes.count == made


class _Counted:
    def __init__(self, count: int) -> None:
        self.count = count

    def __enter__(self) -> _Counted:
        return self

    def __exit__(self, *_: object) -> None: ...

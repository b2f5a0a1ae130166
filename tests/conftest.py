"""Runs that several test files read; a test that changes one works on a copy."""

import subprocess
import sys
from pathlib import Path

import pytest
from miniature import write_miniature


@pytest.fixture(scope="session")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the miniature recipe, with two sampling processes."""
    return write_miniature(tmp_path_factory.mktemp("recipe") / "miniature", processes=2)


@pytest.fixture(scope="session")
def miniature_run(miniature: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder after iterations 1 and 2 of the miniature recipe."""
    run = tmp_path_factory.mktemp("runs") / "miniature"
    for iteration in (1, 2):
        command = [sys.executable, "-m", "prm_gym.cli", "iter", iteration, "--recipe", miniature, "--run", run]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr[-3000:]
    return run

"""Runs that several test files read; a test that changes one works on a copy."""

import subprocess
import sys
from pathlib import Path

import pytest
from miniature import write_miniature


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With `--dist loadgroup` one process tests a file, and the same process all files that read `miniature_run`."""
    if not config.pluginmanager.hasplugin("xdist"):
        return
    sharing = {item.path for item in items if "miniature_run" in getattr(item, "fixturenames", ())}
    for item in items:
        item.add_marker(pytest.mark.xdist_group("miniature_run" if item.path in sharing else item.path.name))


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

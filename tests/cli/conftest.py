"""Running commands in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from prm_gym.cli import main


@pytest.fixture(scope="session")
def games(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two games of `train` and two of `valid_unseen`."""
    from prm_gym.envs.households import generate

    folder = tmp_path_factory.mktemp("games")
    generate(folder, preset="small", splits={"train": 2, "valid_unseen": 2}, seed=3, progress=False)
    return folder


@pytest.fixture
def refusal(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command that must exit with status 2 and print one line, and gives the line without `error: `."""

    def run(*arguments: object) -> str:
        status = main([str(argument) for argument in arguments])
        shown = capsys.readouterr()
        assert (status, shown.out) == (2, "")
        [line] = shown.err.splitlines()
        assert line.startswith("error: ")
        return line.removeprefix("error: ")

    return run

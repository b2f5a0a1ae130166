"""Running commands in this process."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from prm_gym.cli import main


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

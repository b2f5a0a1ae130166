"""Shell completion of unfinished command lines (extra `completion`)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("argcomplete", reason="needs the extra 'completion'")


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("prm-gym sh", {"show"}),
        ("prm-gym show --out", {"--outcome"}),
        ("prm-gym label mon", {"monte_carlo"}),
        ("prm-gym label monte_carlo --gam", {"--gamma"}),
        ("prm-gym iter --host ", {"trl", "open-instruct"}),
    ],
)
def test_commands_flags_and_choices_are_offered(tmp_path: Path, line: str, offered: set[str]) -> None:
    asked = {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line)), "COMP_TYPE": "9"}
    answer = {"_ARGCOMPLETE_IFS": "\n", "_ARGCOMPLETE_STDOUT_FILENAME": str(tmp_path / "offered")}
    command = [sys.executable, "-m", "prm_gym.cli"]
    subprocess.run(command, env={**os.environ, **asked, **answer}, check=True, timeout=120)
    assert {each.strip() for each in (tmp_path / "offered").read_text().split("\n")} == offered

"""What commands print holds paths and names, in which rich would read styles and emoji."""

from __future__ import annotations

from pathlib import Path

import pytest

from prm_gym.cli import main

LAKE = ["--env", "prm_gym.envs.toy_text:frozen_lake", "--policy", "random", "--max-games", "2"]


@pytest.mark.parametrize("folder", ["[a]b", "x[/y]z", "a/:cat:"])
def test_commands_print_paths_as_they_are(tmp_path, monkeypatch, capsys, folder):
    monkeypatch.chdir(tmp_path)
    out = Path(folder)
    for command in (
        ["rollout", *LAKE, "--out", f"{out}/rollouts"],
        ["evaluate", *LAKE, "--policy-id", folder, "--out", f"{out}/eval"],
        ["store", "check", f"{out}/rollouts"],
        ["report", f"{out}/eval", "--out", f"{out}/report.html"],
    ):
        assert main(command) == 0
        assert capsys.readouterr().out.startswith(f"{out}/"), command[0]


@pytest.mark.parametrize("name", ["[a]b", "x[/y]z", "c:cat:d"])
def test_a_table_shows_names_as_they_are(tmp_path, capsys, name):
    assert main(["evaluate", *LAKE, "--policy-id", name, "--out", str(tmp_path / "eval")]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert any(row.strip().startswith(name) for row in rows)

"""`prm-gym doctor` on the games of ALFWORLD_DATA."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from prm_gym.cli.installation import report

CONTENT = {"pddl_domain": "", "grammar": "", "pddl_problem": "", "solvable": True}


def games_row(monkeypatch: pytest.MonkeyPatch, folder: Path | None) -> str:
    """The last row of the table, cells parted by |."""
    if folder is None:
        monkeypatch.delenv("ALFWORLD_DATA", raising=False)
    else:
        monkeypatch.setenv("ALFWORLD_DATA", str(folder))
    console = Console(width=2000)
    with console.capture() as shown:
        console.print(report())
    return next(line for line in shown.get().splitlines() if " games " in line)


def write_games(folder: Path, split: str, count: int, content: str = json.dumps(CONTENT)) -> None:
    for n in range(count):
        place = folder / split / f"pick_two_obj_and_place-Mug-None-Desk-{n}" / "trial_1"
        place.mkdir(parents=True)
        (place / "game.tw-pddl").write_text(content)


@pytest.mark.parametrize("inner", ["", "json_2.1.1"])
def test_games_are_counted_by_split(monkeypatch, tmp_path, inner):
    write_games(tmp_path / inner, "train", 3)
    write_games(tmp_path / inner, "valid_unseen", 1)
    assert f"{tmp_path}: train 3, valid_unseen 1" in games_row(monkeypatch, tmp_path)


def test_damaged_games_are_named(monkeypatch, tmp_path):
    write_games(tmp_path, "train", 1)
    write_games(tmp_path, "valid_seen", 4, "{")
    row = games_row(monkeypatch, tmp_path)
    assert f"{tmp_path}: train 1 " in row
    assert row.count("not a whole JSON object") == 3
    assert "generate or download the game again" in row
    assert "and 1 more files" in row


def test_a_long_path_is_not_cut_short_on_a_narrow_terminal(monkeypatch, tmp_path):
    write_games(tmp_path, "train", 1, "{")
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path))
    console = Console(width=80)
    with console.capture() as shown:
        console.print(report())
    cells = [line.split("│") for line in shown.get().splitlines() if line.startswith("│")]
    missing = "".join(cell[3].strip() for cell in cells)
    assert str(next(tmp_path.rglob("game.tw-pddl"))) in missing


@pytest.mark.parametrize(
    ("folder", "said"),
    [(None, "ALFWORLD_DATA is not set"), ("nowhere", "nowhere: no such folder"), (".", ": no game in it")],
)
def test_what_holds_no_games_is_missing(monkeypatch, tmp_path, folder, said):
    row = games_row(monkeypatch, folder and tmp_path / folder)
    assert said in row
    assert "`prm-gym games`" in row

"""`prm-gym doctor`: the extras, and the games of ALFWORLD_DATA."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import tomllib
from rich.console import Console

from prm_gym.cli import installation
from prm_gym.cli.installation import report

CONTENT = {"pddl_domain": "", "grammar": "", "pddl_problem": "", "solvable": True}


def shown() -> str:
    """The table, a line a row."""
    console = Console(width=2000)
    with console.capture() as captured:
        console.print(report())
    return captured.get()


def games_row(monkeypatch: pytest.MonkeyPatch, folder: Path | None) -> str:
    """The last row of the table, cells parted by |."""
    if folder is None:
        monkeypatch.delenv("ALFWORLD_DATA", raising=False)
    else:
        monkeypatch.setenv("ALFWORLD_DATA", str(folder))
    return next(line for line in shown().splitlines() if " games " in line)


def write_games(folder: Path, split: str, count: int, content: str = json.dumps(CONTENT)) -> None:
    for n in range(count):
        place = folder / split / f"pick_two_obj_and_place-Mug-None-Desk-{n}" / "trial_1"
        place.mkdir(parents=True)
        (place / "game.tw-pddl").write_text(content)


def test_every_extra_of_users_has_a_row_with_its_packages():
    """Of extras that need each other (`gemma`, `trl`) each row has the packages that are its own."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    rows = [re.split("[│┃]", line)[1:-1] for line in shown().splitlines() if line.startswith("│")]
    cells = {part.strip(): found + missing for part, found, missing in rows}
    for extra in set(extras) - {"completion", "docs", "dev"}:
        names = [re.split(r"[<>=\[ ]", need)[0] for need in extras[extra]]
        for name in set(names) - {"prm-gym", "tensorboard"}:
            assert re.search(rf"(^|\W){name}\b", cells[extra]), (extra, name)


def test_the_remedy_names_the_extra(monkeypatch):
    monkeypatch.setattr(installation, "versions", lambda packages: {})
    assert "torch, transformers, trl: pip install 'prm-gym[trl]'" in shown()


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

"""Resumed commands: totals first, then the resumed and the new episodes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("alfworld")

from prm_gym.cli import main
from prm_gym.store import read_episodes


@pytest.fixture
def games(tmp_path: Path) -> Path:
    assert main(["games", str(tmp_path / "g"), "--split", "train=3", "--seed", "3"]) == 0
    return tmp_path / "g"


def last_line(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 0
    return capsys.readouterr().out.splitlines()[-1]


def test_games(games, capsys):
    again = ["games", games, "--split", "train=3", "--seed", "3"]
    assert last_line(capsys, *again) == f"{games}: 3 games in train already; nothing to do"
    manifest = games / "households.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "complete": False}))  # as a kill leaves it
    shutil.rmtree(next((games / "train").iterdir()))
    assert last_line(capsys, *again) == f"{games}: 3 games in train; 2 were there already, 1 are new"


def test_compile(games, capsys, monkeypatch):
    monkeypatch.delenv("PRM_GYM_CACHE", raising=False)  # that of the tests of environments
    assert last_line(capsys, "compile", games) == "3 of 3 games compiled"
    assert last_line(capsys, "compile", games) == "3 of 3 games compiled already; nothing to do"
    next(games.rglob("game.compiled")).unlink()
    assert last_line(capsys, "compile", games) == "3 of 3 games compiled; 2 were there already, 1 are new"


def test_rollout_and_branches(games, capsys, tmp_path):
    play = ["rollout", "--games", games, "--policy", "random", "--max-episode-steps", "20", "--out", tmp_path / "r"]
    assert last_line(capsys, *play) == f"{tmp_path / 'r'}: 3 episodes, 0 won, 0 failed"
    assert last_line(capsys, *play) == f"{tmp_path / 'r'}: 3 of 3 episodes there already, 0 won; nothing to do"
    branch = [
        "rollout",
        "--games",
        games,
        "--policy",
        "expert",
        "--branch-from",
        tmp_path / "r",
        "--out",
        tmp_path / "b",
    ]
    first = last_line(capsys, *branch)
    won = sum(episode.won for episode in read_episodes(tmp_path / "b"))
    total = len(list(read_episodes(tmp_path / "b")))
    assert won > 0
    assert first == f"{tmp_path / 'b'}: {total} episodes, {won} won, 0 failed"
    said = f"{total} of {total} episodes there already, {won} won; nothing to do"
    assert last_line(capsys, *branch) == f"{tmp_path / 'b'}: {said}"


def test_evaluate_says_it_above_its_table(games, capsys, tmp_path):
    command = ["evaluate", "--games", games, "--split", "train", "--policy", "expert", "--out", tmp_path / "e"]
    last_line(capsys, *command, "--max-games", 2)
    assert main([str(word) for word in command]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first == f"{tmp_path / 'e'}: 3 of 3 episodes, 3 won; 2 were there already, 1 are new, 0 failed"


def test_a_size_that_the_states_do_not_give_is_said(games, capsys, tmp_path):
    main([*map(str, ["rollout", "--games", games, "--policy", "expert", "--out", tmp_path / "r"])])
    label = ["label", "prompts", "--rollouts", tmp_path / "r", "--size"]
    states = {turn.state_key for e in read_episodes(tmp_path / "r") for turn in e.turns if turn.reward is not None}
    assert (
        last_line(capsys, *label, 9_999_999, "--out", tmp_path / "d")
        == f"rows wanted: 9,999,999, more than the {len(states)} that these states give"
    )
    assert not last_line(capsys, *label, len(states), "--out", tmp_path / "e").startswith("rows wanted")

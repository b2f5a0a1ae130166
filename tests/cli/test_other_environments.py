"""`--env`: any environment is collected, branched, labelled, evaluated and read by the commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from prm_gym import cli
from prm_gym.provenance import read
from prm_gym.store import read_episodes

LAKE = ["--env", "prm_gym.envs.toy_text:frozen_lake", "--env-kwargs", '{"is_slippery": false}']


def run(*arguments: Any) -> int:
    return cli.main([str(argument) for argument in arguments])


def test_all_the_commands_on_a_lake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b, labels, out = (tmp_path / name for name in ("a", "b", "labels", "out"))
    played = ["--policy", "random", "--max-games", 12, "--max-episode-steps", 20]
    assert run("rollout", *LAKE, *played, "--out", a) == 0
    assert run("rollout", *LAKE, *played, "--out", a) == 0
    assert "12 of 12 episodes there already" in " ".join(capsys.readouterr().out.split())
    assert run("rollout", *LAKE, "--policy", "random", "--branch-from", a, "--out", b, "--max-episode-steps", 20) == 0
    assert all(episode.parent_id for episode in read_episodes(b))
    assert run("label", "monte_carlo", "--rollouts", a, b, "--out", labels) == 0
    record = read(labels)
    assert record is not None
    assert record["settings"]["prompt"]["name"] == "general"
    assert run("show", a) == 0
    assert "lost" in capsys.readouterr().out
    assert run("evaluate", *LAKE, *played, "--split", "valid_unseen", "--out", out) == 0
    [entry] = json.loads((out / "results.json").read_text())
    assert entry["games"] == 12
    assert entry["settings"]["env"]["kwargs"] == {"is_slippery": False}
    assert run("report", out, "--out", tmp_path / "report.html") == 0


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--env", "FrozenLake-v1"], "--max-games: FrozenLake-v1 has 10,000 tasks; say how many to play"),
        (["--env", "no.such:make", "--max-games", "2"], "error: no.such:make: module no not found; correct"),
        (["--env", "FrozenLake-v1", "--games", "x"], "--games: has no effect with --env"),
        (["--games", "x", "--env-kwargs", "{}"], "--env-kwargs: has no effect without --env"),
        (["--env", "FrozenLake-v1", "--env-kwargs", "[1]"], "--env-kwargs: '[1]' is no mapping"),
        (["--env", "FrozenLake-v1", "--env-kwargs", "{1}"], "--env-kwargs: '{1}' is not JSON"),
        ([*LAKE, "--reward-range", "1", "0"], "--reward-range: got [1.0, 0.0]; give [low, high] with low < high"),
        ([*LAKE, "--max-games", "2", "--split", "test"], "has no split 'test'"),
        (["--env", "FrozenLake-v1", "--max-games", "30"], "FrozenLake-v1: an observation of type int, not str"),
    ],
)
def test_what_cannot_be_played_is_one_line(
    flags: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("rollout", *flags, "--policy", "random", "--out", tmp_path / "a") == 2
    told = capsys.readouterr().err
    assert said in told
    assert [line for line in told.splitlines() if line.startswith("error:")] == [told.splitlines()[-1]]


def test_the_expert_is_that_of_the_environment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("rollout", *LAKE, "--policy", "expert", "--max-games", 2, "--out", tmp_path / "a") == 2
    assert "--policy: the environment has no expert" in capsys.readouterr().err

"""`prm-gym rollout --ray`: the work that is sent to the cluster gives what the command gives here."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from prm_gym import cli, rollout
from prm_gym.ray_cluster import Cluster
from prm_gym.rollout.processes import begin_shares, gather, total
from prm_gym.store import read_episodes

LAKE = ["--env", "prm_gym.envs.toy_text:frozen_lake", "--policy", "random", "--max-episode-steps", 20]


def run(*arguments: Any) -> int:
    return cli.main(["rollout", *(str(argument) for argument in arguments)])


def episodes(folder: Path) -> dict[str, Any]:
    return {episode.episode_id: episode for episode in read_episodes(folder)}


def test_the_work_of_the_command_can_be_sent_to_other_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = []

    def here(work: Any, out: Path, cluster: Cluster) -> Any:
        sent.append(cluster)
        work = pickle.loads(pickle.dumps(work))
        found = total([work(folder, (i, 3)) for i, folder in enumerate(begin_shares(out, 3))])
        gather(out)
        return found

    monkeypatch.setattr(rollout, "on_ray", here)
    many = [*LAKE, "--max-games", 7, "--rollouts-per-game", 2]
    assert run(*many, "--out", tmp_path / "one") == 0
    assert run(*many, "--out", tmp_path / "three", "--ray", "head:6379", "--shares", 3) == 0
    assert episodes(tmp_path / "three") == episodes(tmp_path / "one")
    branches = [*LAKE, "--branch-from", tmp_path / "one"]
    assert run(*branches, "--out", tmp_path / "b1") == 0
    assert run(*branches, "--out", tmp_path / "b3", "--ray", "auto") == 0
    assert episodes(tmp_path / "b3") == episodes(tmp_path / "b1")
    assert sent == [Cluster("head:6379", 3), Cluster("auto")]


def test_shares_without_a_cluster_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*LAKE, "--max-games", 2, "--out", tmp_path / "out", "--shares", 2) == 2
    assert "--shares" in capsys.readouterr().err

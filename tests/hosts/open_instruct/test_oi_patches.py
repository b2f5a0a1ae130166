"""The patches: each states its purpose, and git can read it. No checkout is needed."""

from __future__ import annotations

import subprocess

import pytest

from prm_gym.hosts import STAGES
from prm_gym.hosts.open_instruct import arguments
from prm_gym.hosts.open_instruct.commits import COMMITS, PIN
from prm_gym.hosts.open_instruct.prepare import patch_files

FILES = {
    "reward-modeling": "open_instruct/reward_modeling.py",
    "online-dpo": "open_instruct/online_dpo_vllm_thread.py",
    "save": "open_instruct/model_utils.py",
}
PATCHES = patch_files()


def test_numbered_without_a_gap() -> None:
    assert [int(path.name[:4]) for path in PATCHES] == list(range(1, len(PATCHES) + 1))


@pytest.mark.parametrize("path", PATCHES, ids=lambda path: path.stem)
def test_says_why_and_what_stays(path: object) -> None:
    header = path.read_text("utf-8").split("\ndiff --git")[0].splitlines()  # type: ignore[attr-defined]
    assert header[0].startswith(("Stage 2: ", "Stage 3: ", "Both stages: "))
    assert any(line.startswith("Why: ") for line in header)
    assert any(line.startswith("Unchanged: ") for line in header)


@pytest.mark.parametrize("path", PATCHES, ids=lambda path: path.stem)
def test_well_formed_and_touches_only_its_file(path: object) -> None:
    wanted = next(file for name, file in FILES.items() if path.stem[5:].startswith(name))  # type: ignore[attr-defined]
    stat = subprocess.run(["git", "apply", "--numstat", str(path)], capture_output=True, text=True, cwd="/")
    assert stat.returncode == 0, stat.stderr
    assert [line.split("\t")[2] for line in stat.stdout.splitlines()] == [wanted]


def test_each_belongs_to_a_commit_and_the_pin_has_every_stage() -> None:
    assert {number for commit in COMMITS for number in commit.patches} == {int(path.name[:4]) for path in PATCHES}
    assert set(STAGES["open-instruct"].values()) == set(PIN.stages) == set(arguments.STAGES)


def test_small() -> None:
    lines = [line for path in PATCHES for line in path.read_text("utf-8").split("\ndiff --git")[1].splitlines()[3:]]
    assert sum(line.startswith(("+", "-")) for line in lines) < 100

"""Environments that break the contract: one line with name and remedy, and the other episodes are played."""

from __future__ import annotations

import json
import math
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from rollout_world import Walker

from prm_gym.envs.contract import Task
from prm_gym.envs.named import NamedEnvironment
from prm_gym.errors import UserError
from prm_gym.rollout import rollout
from prm_gym.store import read_episodes
from prm_gym.types import StopReason

TASKS = [Task(f"count/{seed}", "train", seed=seed) for seed in range(8)]
BAD = 3  # the seed with which the fault shows


class Counter:
    """Three steps to the end. `fault` happens at the second step of the task of seed `BAD`."""

    def __init__(self, fault: str = "", **more: Any) -> None:
        self.fault, self.more = fault, more

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self.steps, self.bad = 0, seed == BAD
        if self.bad and self.fault == "raises in reset":
            raise RuntimeError("no world\nof this seed")
        if self.bad and self.fault == "reset gives the observation alone":
            return "0"
        return "0", {"task": "count", "admissible_commands": ["go left", "go right"]}

    def step(self, action: str) -> Any:
        self.steps += 1
        observation: Any = str(self.steps)
        reward: Any = float(self.steps == 3)
        info: Any = {"admissible_commands": ["go left", "go right"]}
        fault = self.fault if self.bad and self.steps == 2 else ""
        if fault == "observation":
            observation = self.steps
        if fault == "raises in step":
            raise KeyError("lamp")
        if fault == "exits":
            raise SystemExit(3)
        rewards = {"NaN": math.nan, "text": "much", "over": 1.5, "negative": -0.1}
        reward = rewards.get(fault, reward)
        if fault == "commands vanish":
            info = {}
        if fault == "commands are a text":
            info = {"admissible_commands": "go left"}
        if fault == "commands are numbers":
            info = {"admissible_commands": [1, 2]}
        if fault == "info":
            info = None
        if fault == "won is a text":
            info = {"admissible_commands": ["go left", "go right"], "won": "no"}
        if fault == "four values":
            return observation, reward, False, info
        return observation, reward, self.steps == 3, False, info

    def close(self) -> None:
        if self.fault:
            raise OSError("closed twice")


FAULTS = {
    "observation": (1, "an observation of type int, not str; return text, or wrap .*Described"),
    "NaN": (1, "a reward of nan; return a finite number"),
    "text": (1, "a reward of 'much'; return a finite number"),
    "over": (1, r"a reward of 1.5, 1.5 in sum, outside \[0, 1\]; .*reward_range"),
    "negative": (1, r"a reward of -0.1, -0.1 in sum, outside \[0, 1\]; .*reward_range"),
    "four values": (1, "step gave 4 values, not 5; return observation, reward, terminated, truncated, info"),
    "reset gives the observation alone": (0, "reset gave one str, not 2; return .* observation, info from reset"),
    "raises in reset": (0, "reset raised RuntimeError: no world; correct the environment"),
    "raises in step": (1, "step raised KeyError: 'lamp'; correct the environment"),
    "exits": (1, "step raised SystemExit: 3; correct the environment"),
    "won is a text": (1, "won is 'no', not a bool; give True or False"),
    "commands vanish": (1, "admissible_commands were a list and are None now; give a list of str at every step"),
    "commands are a text": (1, "admissible_commands are 'go left', not a list of str; give a list of str"),
    "commands are numbers": (1, r"admissible_commands are \[1, 2\], not a list of str"),
    "info": (1, "info of type NoneType, not dict; return observation, reward"),
}


def env(**kwargs: Any) -> NamedEnvironment:
    return NamedEnvironment(factory=f"{__name__}:Counter", kwargs=kwargs)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_line_and_ends_its_own_episode_alone(fault: str, tmp_path: Path) -> None:
    summary = rollout(TASKS, Walker(), tmp_path, make_env=env(fault=fault), max_failed_share=0.5, progress=False)
    assert (summary.episodes, summary.failures) == (7, 1)
    assert {episode.game_id for episode in read_episodes(tmp_path)} == {t.game_id for t in TASKS if t.seed != BAD}
    [line] = (tmp_path / "failures.jsonl").read_text().splitlines()
    failure = json.loads(line)
    assert (failure["stop_reason"], failure["game_id"]) == (StopReason.ENV_ERROR.value, f"count/{BAD}")
    assert "\n" not in failure["reason"]
    turn, said = FAULTS[fault]
    assert failure["reason"].startswith(f"{__name__}:Counter: ")
    assert re.search(said, failure["reason"]), failure["reason"]
    assert failure["turn"] == turn


def test_what_is_mended_is_played_by_the_same_command(tmp_path: Path) -> None:
    rollout(TASKS, Walker(), tmp_path, make_env=Mended, max_failed_share=0.5, progress=False)
    Mended.broken = False
    summary = rollout(TASKS, Walker(), tmp_path, make_env=Mended, progress=False)
    assert (summary.resumed, summary.episodes, summary.failures) == (7, 1, 0)


class Mended(Counter):
    broken = True

    def reset(self, **options: Any) -> Any:
        self.fault = "raises in step" if self.broken else ""
        return super().reset(**options)


class Endless(Counter):
    def step(self, action: str) -> Any:
        return "on", 0.0, False, False, {"admissible_commands": ["go left"]}


def test_an_environment_without_end_is_cut_off_by_the_step_limit(tmp_path: Path) -> None:
    rollout(TASKS, Walker(), tmp_path, make_env=Endless, max_episode_steps=5, progress=False)
    for episode in read_episodes(tmp_path):
        assert (episode.stop_reason, episode.actions) == ("step_limit", 5)
        assert [turn.truncated for turn in episode.turns] == [False] * 4 + [True, False]


class Doubled(Counter):
    def tasks(self, split: str) -> list[Task]:
        return [Task("same", split, seed=seed) for seed in range(2)]


@pytest.mark.parametrize(
    ("env", "said"),
    [
        (NamedEnvironment(factory="no_such_package.deep:make"), "module no_such_package not found; .*PYTHONPATH"),
        (NamedEnvironment(factory="json:no_such"), "json has no function no_such; say package.module:factory"),
        (NamedEnvironment(id="NoSuch-v0"), "NoSuch.* doesn't exist.*; correct the id"),
        (NamedEnvironment(id="no_such_package:Walk-v0"), "module no_such_package not found; .*PYTHONPATH"),
        (
            NamedEnvironment(id="FrozenLake-v1", kwargs={"size": 8}),
            "cannot be made .*size.*; correct its kwargs",
        ),
        (NamedEnvironment(factory="math:hypot"), "made a float, which has no method reset; return a gymnasium.Env"),
        (
            NamedEnvironment(id="CartPole-v1", reward_range=[0, 0]),
            r"reward_range: got \[0, 0\]; give \[low, high\]",
        ),
        (NamedEnvironment(id="CartPole-v1", reward_range=["0", 1]), r"env: reward_range: got \['0', 1\]; give \[low"),
        (NamedEnvironment(id="CartPole-v1", reward_range=3), "env: reward_range: got 3; give"),
        (NamedEnvironment(id="CartPole-v1", kwargs=[1]), "env: kwargs: no arguments of JSON values"),
        (NamedEnvironment(factory="sys:exit"), r"cannot be made \(SystemExit.*; correct its kwargs or code"),
        (NamedEnvironment(factory=f"{__name__}:Doubled"), r"tasks\('train'\) names 'same' twice; give each task"),
    ],
)
def test_an_environment_that_cannot_be_made_is_told_before_work(env: NamedEnvironment, said: str) -> None:
    with pytest.raises(UserError, match=said) as told:
        env.tasks("train")
    assert str(told.value).startswith((env.name, "env: "))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("factory", "source", "said"),
    [
        ("worlds.wrold:World", "", "module worlds.wrold not found; correct the name, put its folder on PYTHONPATH"),
        ("worlds.world:World", "import no_such_package.deep", "worlds.world is there, but it imports no_such_package"),
        ("worlds.world:World", "class World(:", r"cannot be made \(SyntaxError: .*line 1\)\); correct its code$"),
        ("worlds.world:World", "def World(): return undefined", r"cannot be made \(NameError: .*; correct its code$"),
    ],
)
def test_a_missing_module_is_told_from_a_faulty_one(
    factory: str, source: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "worlds").mkdir()
    (tmp_path / "worlds" / "__init__.py").touch()
    (tmp_path / "worlds" / "world.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    for module in ("worlds", "worlds.world"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(UserError, match=said):
        NamedEnvironment(factory=factory).make()

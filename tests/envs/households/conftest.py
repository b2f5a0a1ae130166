"""Generated games for the tests of this folder, and alfworld's own player as the oracle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prm_gym.envs.households import generate

pytest.importorskip("alfworld")


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of small games: two of each task type in train, one in each other split."""
    out = tmp_path_factory.mktemp("households") / "small"
    generate(out, preset="small", splits={"train": 12, "valid_seen": 6, "valid_unseen": 6}, seed=3, progress=False)
    return out


@pytest.fixture(scope="session")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of full games: one of each task type in train, one of each in valid_unseen."""
    out = tmp_path_factory.mktemp("households") / "full"
    generate(out, preset="full", splits={"train": 6, "valid_unseen": 6}, seed=3, progress=False)
    return out


@pytest.fixture
def stock() -> Callable[[Path], Any]:
    """Load a game file in stock TextWorld, wrapped as AlfredTWEnv wraps it."""
    import textworld
    from alfworld.agents.environment.alfred_tw_env import AlfredDemangler, AlfredInfos
    from textworld.envs.pddl import PddlEnv

    def load(path: Path) -> Any:
        infos = textworld.EnvInfos(won=True, feedback=True, admissible_commands=True, extras=["gamefile"])
        env = AlfredInfos(AlfredDemangler(PddlEnv(infos)))
        env.load(str(path))
        return env

    return load

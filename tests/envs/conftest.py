"""Generated games for the tests of environments and engines, and a cache of compiled games for one test session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from prm_gym.envs import engine
from prm_gym.envs.games import Game, find_games


@pytest.fixture(scope="session", autouse=True)
def compiled_games(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of compiled games of this test run, instead of beside the games or in the home folder."""
    folder = tmp_path_factory.mktemp("compiled")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRM_GYM_CACHE", str(folder))
        yield folder


@pytest.fixture
def fresh_engine() -> Iterator[None]:
    """An engine that holds no game yet, and forgets those of the test."""
    engine.set_limits()
    yield
    engine.set_limits()


@pytest.fixture(scope="session")
def small_games(tmp_path_factory: pytest.TempPathFactory) -> list[Game]:
    """One small game of each task type."""
    return _games(tmp_path_factory.mktemp("small"), "small", 6)


@pytest.fixture(scope="session")
def full_games(tmp_path_factory: pytest.TempPathFactory) -> list[Game]:
    """Two games of real size."""
    return _games(tmp_path_factory.mktemp("full"), "full", 2)


def _games(folder: Path, preset: str, count: int) -> list[Game]:
    pytest.importorskip("alfworld")
    from prm_gym.envs.households import generate

    generate(folder, preset=preset, splits={"train": count}, seed=11, progress=False)
    return find_games(folder)

"""Q on held-out episodes, as a stage of a run."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from rollout_world import Corridor, Walker, make_games

from prm_gym.rollout import rollout
from prm_gym.runs.evaluations import Evaluations
from prm_gym.types import Response, State


class Half:
    """Q is 0.5."""

    closed = False

    async def score(self, pairs: list[tuple[State, Response]]) -> list[float]:
        return [0.5] * len(pairs)

    async def close(self) -> None:
        self.closed = True


def test_q_is_closed_once_it_is_measured(tmp_path: Path) -> None:
    for folder in ("rollouts", "branches"):
        rollout(make_games(2), Walker(), tmp_path / folder, make_env=Corridor, progress=False)
    scorer = Half()
    recipe = SimpleNamespace(labels=SimpleNamespace(kind="monte_carlo"), gamma=0.95)
    run: Any = SimpleNamespace(recipe=recipe, scoring=lambda: lambda: scorer)
    quality = Evaluations.quality(cast(Evaluations, run), tmp_path)
    assert quality.visits
    assert scorer.closed

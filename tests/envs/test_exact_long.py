"""The exact engine against stock alfworld at length: 220 games and 21,200 steps (`make test-exact`, half an hour).

Every chunk has games of its own, all task types and so all kinds of rooms in turn. Walks follow the known plan half of
the time, so that most pass a win and go on; a snapshot is restored every 25 steps or so, and nothing may differ.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

pytest.importorskip("alfworld")

from walks import assert_same, follow

from prm_gym.envs import engine
from prm_gym.envs.engine.plays import ExactGame
from prm_gym.envs.games import Game, find_games
from prm_gym.envs.households import generate
from prm_gym.envs.stock import StockGame

CHUNKS = [("small", 10, 100, chunk) for chunk in range(20)] + [("full", 4, 60, chunk) for chunk in range(5)]


@pytest.mark.slow
@pytest.mark.parametrize(("preset", "count", "steps", "chunk"), CHUNKS)
def test_no_difference(tmp_path: Path, preset: str, count: int, steps: int, chunk: int) -> None:
    generate(tmp_path, preset=preset, splits={"train": count}, seed=1000 + chunk, progress=False)
    won = 0
    for number, game in enumerate(find_games(tmp_path)):
        won += _walk(game, steps, random.Random(f"{preset} {chunk} {number}"))
    print(f"{preset} {chunk}: {count} games, {count * steps} steps, {won} won")
    assert won > 0


def _walk(file: Game, steps: int, rng: random.Random) -> bool:
    """Whether the walk passed a win."""
    game = engine.load(file)
    assert isinstance(game, ExactGame)
    stock, exact = StockGame(file).start(), game.start()
    assert_same(stock, exact, "start")
    won = False
    for command in follow(rng, json.loads(file.path.read_bytes())["walkthrough"], stock, steps):
        stock.step(command)
        exact.step(command)
        assert_same(stock, exact, command)
        won |= exact.won
        if rng.random() < 0.04:
            exact = game.restore(json.loads(json.dumps(exact.snapshot())))
            assert_same(stock, exact, "restore")
    return won

"""The exact engine against stock alfworld at length: 234 games and 22,240 steps (`make test-slow`).

Every chunk has games of its own, all task types and so all kinds of rooms in turn. Walks follow the known plan half of
the time, so that most pass a win and go on; a snapshot is restored every 25 steps or so, and nothing may differ.

Stock spends two thirds of a step on parsing the same texts again. The first chunks are played on stock as it is; for
the others its parsers remember what they were given, which changes nothing else of it and takes a third of the time.
"""

from __future__ import annotations

import json
import random
from copy import deepcopy
from functools import lru_cache
from pathlib import Path

import pytest

pytest.importorskip("alfworld")

from walks import assert_same, follow

from prm_gym.envs import engine
from prm_gym.envs.engine.exact_game import ExactGame
from prm_gym.envs.games import Game, find_games
from prm_gym.envs.households import generate
from prm_gym.envs.stock import StockGame


@pytest.fixture
def remembered_parses(monkeypatch: pytest.MonkeyPatch) -> None:
    """TextWorld's parsers of texts and queries, each text parsed once; what they return is as new every time."""
    from textworld.envs.pddl import textgen
    from textworld.logic import Rule

    symbols, query = lru_cache(None)(textgen._parse_and_convert), lru_cache(None)(Rule.parse_conjunctive_query)
    monkeypatch.setattr(textgen, "_parse_and_convert", lambda *args, **kwargs: deepcopy(symbols(*args, **kwargs)))
    monkeypatch.setattr(Rule, "parse_conjunctive_query", query)


@pytest.mark.slow
@pytest.mark.parametrize(("preset", "count", "steps", "seed"), [("full", 4, 60, 0), ("small", 10, 100, 1)])
def test_no_difference_from_stock_as_it_is(tmp_path: Path, preset: str, count: int, steps: int, seed: int) -> None:
    assert_no_difference(tmp_path, preset, count, steps, 1000 + seed)


CHUNKS = [("small", 10, 100, seed) for seed in range(18)] + [("full", 5, 75, seed) for seed in range(8)]


@pytest.mark.slow
@pytest.mark.parametrize(("preset", "count", "steps", "seed"), CHUNKS)
def test_no_difference_at_length(
    tmp_path: Path, remembered_parses: None, preset: str, count: int, steps: int, seed: int
) -> None:
    assert_no_difference(tmp_path, preset, count, steps, 2000 + seed)


def assert_no_difference(folder: Path, preset: str, count: int, steps: int, seed: int) -> None:
    """Walk `steps` steps in each of `count` new games with both engines."""
    generate(folder, preset=preset, splits={"train": count}, seed=seed, progress=False)
    won = 0
    for number, game in enumerate(find_games(folder)):
        won += _walk(game, steps, random.Random(f"{preset} {seed} {number}"))
    print(f"{preset} {seed}: {count} games, {count * steps} steps, {won} won, no difference")
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

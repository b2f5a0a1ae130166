"""Games made from problems of the original ALFRED data: exactness, the expert, labels.

REAL_GAMES names their folder, in alfworld's format; by default it is ../shared/real_games beside the checkout.
"""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pyarrow.parquet as pq
import pytest

pytest.importorskip("alfworld")

from walks import assert_same, follow

from prm_gym.envs import engine
from prm_gym.envs.engine.exact_game import ExactGame
from prm_gym.envs.games import Game, find_games
from prm_gym.envs.stock import StockGame
from prm_gym.labels import monte_carlo
from prm_gym.policies.expert import ExpertPolicy
from prm_gym.rollout import rollout
from prm_gym.store import read_episodes
from prm_gym.types import Episode

ROOT = Path(__file__).parents[2]
FOLDER = Path(os.environ.get("REAL_GAMES", ROOT.parent / "shared" / "real_games"))
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no real games: REAL_GAMES names no folder ({FOLDER})")
GAMMA = 0.95


@pytest.fixture(scope="module")
def games() -> list[Game]:
    found = find_games(FOLDER)
    assert found, f"{FOLDER} holds no game"
    return found


@pytest.fixture(scope="module")
def expert(games: list[Game], tmp_path_factory: pytest.TempPathFactory) -> list[Episode]:
    folder = tmp_path_factory.mktemp("expert")
    rollout(games, ExpertPolicy(), folder, progress=False)
    return list(read_episodes(folder))


def test_the_expert_wins(games: list[Game], expert: list[Episode]) -> None:
    assert len(expert) == len(games)
    assert all(episode.won for episode in expert)


def test_walks_are_those_of_stock(games: list[Game], expert: list[Episode]) -> None:
    """Random commands in between those of the expert, which wins in stock too; snapshots are restored on the way."""
    plans = {episode.game_id: [turn.action for turn in episode.turns[:-1]] for episode in expert}
    for game in games:
        loaded, rng = engine.load(game), random.Random(game.game_id)
        assert isinstance(loaded, ExactGame)
        stock, exact = StockGame(game).start(), loaded.start()
        assert_same(stock, exact, "start")
        for number, command in enumerate(follow(rng, plans[game.game_id], stock, 40)):
            stock.step(command)
            exact.step(command)
            assert_same(stock, exact, command)
            if number % 15 == 14:
                exact = loaded.restore(json.loads(json.dumps(exact.snapshot())))
                assert_same(stock, exact, "restore")


def test_the_expert_wins_in_stock(games: list[Game], expert: list[Episode]) -> None:
    for game, episode in zip(games, expert, strict=True):
        play = StockGame(game).start()
        for turn in episode.turns[:-1]:
            assert not play.won
            play.step(turn.action)
        assert play.won


def test_targets_are_the_discounted_wins(games: list[Game], expert: list[Episode], tmp_path: Path) -> None:
    """Of one won episode of T actions, Eq. 1 gives gamma^(T-1-t) at turn t."""
    rollout(games, ExpertPolicy(), tmp_path / "rollouts", progress=False)
    monte_carlo.label([tmp_path / "rollouts"], tmp_path / "out", gamma=GAMMA, prompt="full")
    expected = {
        (episode.game_id, t, f"ACTION: {episode.turns[t].action}"): GAMMA ** (episode.actions - 1 - t)
        for episode in expert
        for t in range(episode.actions)
    }
    rows = [row for file in (tmp_path / "out").rglob("*.parquet") for row in pq.read_table(file).to_pylist()]
    found = {
        (row["game_id"], row["turn"], row["completion"][0]["content"].splitlines()[-1]): row["target"] for row in rows
    }
    assert found == pytest.approx(expected)

"""The base model of the embedded recipes: its weights are those of its card, and it plays."""

import asyncio
import hashlib
import re
from pathlib import Path

import pytest

from prm_gym import prompts
from prm_gym.envs.engine import compile_games
from prm_gym.envs.games import find_games
from prm_gym.envs.households import generate
from prm_gym.provenance.checkpoint_settings import trained_for
from prm_gym.rollout import collect
from prm_gym.store import read_episodes

MODEL = Path(__file__).parent.parent / "models" / "alfworld-small"


def test_the_weights_are_those_of_the_card() -> None:
    digest = hashlib.sha256((MODEL / "model.safetensors").read_bytes()).hexdigest()
    assert re.findall(r"`([0-9a-f]{64})`", (MODEL / "README.md").read_text()) == [digest]


def test_it_carries_the_prompt_that_it_reads() -> None:
    trained = trained_for(MODEL)
    assert trained is not None
    assert trained.prompt.source == prompts.load("compact").source


def test_it_wins_most_of_a_few_games_that_it_has_never_seen(tmp_path: Path) -> None:
    """80 of 100: of 12 fewer than 6 by chance 4 times in 1,000, and the draws are seeded."""
    for package, extra in (("alfworld", "alfworld"), ("transformers", "trl")):
        pytest.importorskip(package, reason=f"needs the extra '{extra}'")
    from prm_gym.policies.transformers import TransformersPolicy

    generate(tmp_path / "games", preset="small", splits={"valid_seen": 12}, seed=77, workers=1)
    games = find_games(tmp_path / "games", "valid_seen")
    compile_games([game.path for game in games], workers=1)
    policy = TransformersPolicy(MODEL, temperature=0.3, max_new_tokens=16)
    asyncio.run(collect(games, policy, tmp_path / "episodes", max_episode_steps=16))
    episodes = list(read_episodes(tmp_path / "episodes"))
    assert len(episodes) == 12
    assert sum(episode.won for episode in episodes) >= 6

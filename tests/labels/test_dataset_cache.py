"""`datasets` never loads an older dataset in place of the one in the folder."""

from pathlib import Path

import pytest
from datasets import load_dataset

from prm_gym.labels import monte_carlo
from prm_gym.store import EpisodeWriter
from prm_gym.types import Episode, Turn


def rollouts(folder: Path, games: int) -> Path:
    with EpisodeWriter(folder) as writer:
        for game in range(games):
            turns = [Turn(0, "o", ["a"], response="a", action="a", reward=1.0, terminated=True), Turn(1, "p", [])]
            writer.add(Episode(f"e{game}", f"g{game}", "train", "t", "k", "pi_0", 0, 0, "won", turns))
    return folder


def test_two_folders_of_one_name_are_two_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    for games in (30, 60):
        out = tmp_path / str(games) / "prm"
        out.parent.mkdir()
        monte_carlo.label([rollouts(tmp_path / f"rollouts{games}", games)], out, prompt="compact")
        assert sum(len(split) for split in load_dataset(str(out)).values()) == games

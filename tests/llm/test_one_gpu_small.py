"""recipes/one-gpu at small size on a CPU, through `make one-gpu` in pieces that a time limit ends: minutes.

Its own files but for the sizes, on a random Gemma 3 of two layers whose vocabulary is cut.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("trl", reason="needs the extra 'trl'")
pytest.importorskip("alfworld")

from bpe_tokenizers import write_model

from prm_gym.store import read_episodes

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
SECONDS = 90  # of a piece
STEPS = {"max_steps": 4, "save_steps": 1, "per_device_train_batch_size": 2, "logging_steps": 1}


def changed(path: Path, **values: Any) -> None:
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **values}, sort_keys=False))


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    folder = shutil.copytree(ROOT / "recipes" / "one-gpu", tmp_path / "recipe")
    write_model(tmp_path / "model")
    whole = yaml.safe_load((folder / "recipe.yaml").read_text())
    changed(
        folder / "recipe.yaml",
        max_episode_steps=12,
        games={"preset": "small", "seed": 4, "splits": {"train": 12, "valid_unseen": 4}},
        start={**whole["start"], "model": str(tmp_path / "model"), "demonstrations": {"games": 12}},
        sampling={**whole["sampling"], "max_new_tokens": 8, "max_batch": 8, "processes": 2},
        rollouts={"games": 4, "per_game": 1},
        branches={"states_per_episode": 2, "actions": 3, "continuations": 1},
        labels={**whole["labels"], "kind": "monte_carlo", "prompts": {"size": 20}},  # no pair without a win
        evaluation={**whole["evaluation"], "games": 4, "best_of": [{"n": 2, "weight": 1, "among": "admissible"}]},
    )
    for name in ("sft", "prm", "online_dpo"):
        changed(folder / f"{name}.yaml", use_cpu=True, **STEPS)
    changed(folder / "prm.yaml", loss="soft_bce")
    changed(folder / "online_dpo.yaml", max_new_tokens=8)
    return folder


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """A virtual environment as `make` leaves one, made of this interpreter's."""
    folder = tmp_path / "venv"
    folder.mkdir()
    (folder / "bin").symlink_to(Path(sys.executable).parent)
    (folder / ".installed").touch()
    (folder / ".gemma").touch()
    return folder


def test_three_iterations_in_pieces_that_go_on(recipe: Path, environment: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = ["make", "one-gpu", f"RECIPE={recipe}", f"RUN={run}", f"VENV={environment}", f"LIMIT={SECONDS}"]
    pieces, status = 0, None
    while status != 0:
        pieces += 1
        assert pieces < 60
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        print(done.stdout[-500:])
        status = done.returncode
        assert status == 0 or "Error 124" in done.stderr, done.stderr[-3000:]
    assert pieces > 2
    results = json.loads((run / "results.json").read_text())
    assert [(entry["policy"], entry["mode"], entry["games"]) for entry in results] == [
        ("pi_0", "policy", 4),
        *((f"pi_{n}", mode, 4) for n in (1, 2, 3) for mode in ("policy", "best_of_2_weight1_admissible")),
    ]
    for n in (1, 2, 3):
        ids = [episode.episode_id for episode in read_episodes(run / f"iter{n}" / "rollouts")]
        assert len(ids) == len(set(ids)) == 4
        assert (run / f"pi_{n}" / "model.safetensors").is_file()
    assert (run / "report.html").is_file()

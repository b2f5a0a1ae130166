"""recipes/one-gpu at small size on a CPU, through `make one-gpu` in pieces that a time limit ends: minutes.

Its own files but for the sizes, on a random Gemma 3 of two layers whose vocabulary is cut.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytest.importorskip("trl", reason="needs the extra 'trl'")
pytest.importorskip("alfworld")

from bpe_tokenizers import write_model
from miniature import write_miniature

from prm_gym.store import read_episodes

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
SECONDS = 60  # of the first piece; each has more than the one before, so that a slow machine gets on


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    folder = write_miniature(tmp_path / "recipe", recipe="one-gpu")
    write_model(tmp_path / "model")
    values = yaml.safe_load((folder / "recipe.yaml").read_text())
    values["games"]["preset"] = "small"
    values["start"]["model"] = str(tmp_path / "model")
    values["sampling"].update(max_new_tokens=8, max_batch=8)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(values))
    for name in ("sft", "prm", "online_dpo"):
        with (folder / f"{name}.yaml").open("a") as file:
            file.write("use_cpu: true\n")
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
    command = ["make", "one-gpu", f"RECIPE={recipe}", f"RUN={run}", f"VENV={environment}"]
    pieces, status = 0, None
    while status != 0:
        pieces += 1
        assert pieces < 20
        done = subprocess.run(
            [*command, f"LIMIT={pieces * SECONDS}"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        print(done.stdout[-500:])
        status = done.returncode
        assert status == 0 or "Error 124" in done.stderr, done.stderr[-3000:]
    assert pieces > 1
    results = json.loads((run / "results.json").read_text())
    assert [(entry["policy"], entry["mode"], entry["games"]) for entry in results] == [
        ("pi_0", "policy", 3),
        *((f"pi_{n}", mode, 3) for n in (1, 2, 3) for mode in ("policy", "best_of_2", "best_of_2_weight1_admissible")),
    ]
    for n in (1, 2, 3):
        ids = [episode.episode_id for episode in read_episodes(run / f"iter{n}" / "rollouts")]
        assert len(ids) == len(set(ids)) == 12
        assert (run / f"pi_{n}" / "model.safetensors").is_file()
    assert (run / "report.html").is_file()

"""The output of a command that loads models: the libraries' messages appear only with -v."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("alfworld")
pytest.importorskip("transformers")

from tiny_models import classifier, language_model

from prm_gym.envs.households import generate


@pytest.mark.parametrize("verbose", [False, True])
def test_loads_are_shown_with_v_alone(tmp_path: Path, verbose: bool) -> None:
    generate(tmp_path / "g", preset="small", splits={"valid_seen": 1}, seed=3, progress=False)
    names = {"--games": tmp_path / "g", "--split": "valid_seen", "--policy": language_model(), "--prm": classifier()}
    sizes = {"--prompt": "compact", "--best-of": 2, "--max-new-tokens": 2, "--max-episode-steps": 1}
    flags = [str(word) for flag in {**names, **sizes, "--out": tmp_path / "e"}.items() for word in flag]
    command = [sys.executable, "-m", "prm_gym.cli", "evaluate", *flags, *(["-v"] if verbose else [])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0
    assert done.stdout.startswith(f"{tmp_path / 'e'}: 1 episodes, ")
    assert ("Loading weights" in done.stderr) == verbose
    if not verbose:
        [line] = done.stderr.splitlines()
        assert line.startswith("episodes ")

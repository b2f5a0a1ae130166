"""Fixtures: the checkout of open-instruct if there is one, a tiny policy, label folders, runs of the launcher."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from oi_world import HOST_PYTHON, Run, World, write_labels


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The prepared checkout of open-instruct; the test is skipped without one."""
    path = os.environ.get("OPEN_INSTRUCT")
    if not path:
        pytest.skip("OPEN_INSTRUCT does not name a checkout of open-instruct")
    if shutil.which(HOST_PYTHON) is None:
        pytest.skip(f"no interpreter for open-instruct at {HOST_PYTHON}: `make test-host` makes one")
    from prm_gym.hosts.open_instruct import prepare

    prepare(path)
    return Path(path).resolve()


@pytest.fixture(scope="session")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    def make(kind: str, train: int = 64, test: int = 16) -> Path:
        folder: Path = tmp_path_factory.mktemp(kind)
        return write_labels(folder, kind, train, test)

    return make


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random policy of two layers with the tokenizer of the embedded recipes."""
    from prm_gym.hosts.tiny_model import make_tiny_model

    folder: Path = tmp_path_factory.mktemp("model") / "untrained"
    world = World()
    rows = [world.prompts() for _ in range(200)]
    texts = [m["content"] for row in rows for m in row["exploration_prompt"]]
    texts += [world.action(verb)[0]["content"] for verb in ("take", "drop") for _ in range(100)]
    make_tiny_model(folder, texts, hidden_size=32, layers=2, heads=2)
    return folder


@pytest.fixture(scope="session")
def launch(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Run]:
    """Run a stage on the checkout in a process of its own, killed after `limit` seconds."""

    from prm_gym.hosts.open_instruct.prepare import require_prepared

    commit = require_prepared(checkout)

    def run(
        stage: str,
        recipe: dict[str, Any],
        *,
        program: str | None = None,
        prefix: list[str] | None = None,
        limit: int = 600,
    ) -> Run:
        if stage not in commit.stages:
            pytest.skip(f"open-instruct has no {stage} at commit {commit.sha[:12]}")
        folder = tmp_path_factory.mktemp(stage)
        recipe = {"output_dir": str(folder / "out"), **recipe}
        (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), "utf-8")
        module = ["-c", program] if program else ["-m", "prm_gym.hosts.open_instruct"]
        command = prefix or [HOST_PYTHON, *module]
        environment = {
            **os.environ,
            "OPEN_INSTRUCT": str(checkout),
            "OMP_NUM_THREADS": "1",
            "TORCHDYNAMO_DISABLE": "1",  # compiling takes longer than these runs
            "HF_HUB_OFFLINE": "1",
            "HF_HOME": str(folder / "hf"),
        }
        done = subprocess.run(
            ["timeout", "-s", "KILL", str(limit), *command, stage, str(folder / "recipe.yaml")],
            env=environment,
            cwd=folder,
            capture_output=True,
            text=True,
        )
        return Run(done.returncode, done.stdout + done.stderr, Path(recipe["output_dir"]))

    return run

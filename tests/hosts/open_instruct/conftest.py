"""A toy world for the host: a policy that answers "take" or "drop", labels for it, and the checkout if there is one."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
HOST_PYTHON = os.environ.get("PRM_GYM_HOST_PYTHON", sys.executable)


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The prepared checkout of open-instruct; the test is skipped without one."""
    path = os.environ.get("OPEN_INSTRUCT")
    if not path:
        pytest.skip("OPEN_INSTRUCT does not name a checkout of open-instruct")
    from prm_gym.hosts.open_instruct import prepare

    prepare(path)
    return Path(path).resolve()


def message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


class World:
    """Rows of every label kind. Q is 0.9 for "take" and 0.1 for "drop"; the expert takes, the learner drops."""

    def __init__(self, seed: int = 0) -> None:
        self.random = random.Random(seed)

    def prompt(self) -> list[dict[str, str]]:
        thing = self.random.choice(["mug", "desk", "lamp", "bowl", "shelf"])
        see = f"You see a {thing} {self.random.randrange(10)}. Your task is to get it."
        return [message("system", "You play a game."), message("user", see)]

    def action(self, verb: str) -> list[dict[str, str]]:
        return [message("assistant", f"ACTION: {verb} {self.random.choice(['mug', 'desk'])}")]

    def monte_carlo(self) -> dict[str, Any]:
        verb = self.random.choice(["take", "drop"])
        target = {"take": 0.9, "drop": 0.1}[verb]
        return {"prompt": self.prompt(), "completion": self.action(verb), "target": target, "count": 1}

    def sft(self) -> dict[str, Any]:
        return {"prompt": self.prompt(), "completion": self.action(self.random.choice(["take", "drop"]))}

    def value(self) -> dict[str, Any]:
        prompt = self.prompt()
        return {"prompt": prompt, "target": 0.8 if "mug" in prompt[1]["content"] else 0.2, "count": 1}

    def preferences(self) -> dict[str, Any]:
        return {"prompt": self.prompt(), "chosen": self.action("take"), "rejected": self.action("drop"), "margin": 0.8}

    def inverse(self) -> dict[str, Any]:
        expert = self.random.random() < 0.5
        row = {"prompt": self.prompt(), "completion": self.action("take" if expert else "drop"), "expert": expert}
        if self.random.random() < 0.3:
            return {**row, "next_prompt": None, "next_completion": None, "terminated": True}
        return {**row, "next_prompt": self.prompt(), "next_completion": self.action("drop"), "terminated": False}

    def prompts(self) -> dict[str, Any]:
        prompt = self.prompt()
        exploration = [prompt[0], message("user", prompt[1]["content"] + " Your task is to explore.")]
        return {"prompt": prompt, "exploration_prompt": exploration, "source": "policy"}


def write_labels(folder: Path, kind: str, train: int, test: int = 16, seed: int = 0) -> Path:
    """A folder as `prm-gym label` writes it: Parquet, splits train and test."""
    from datasets import Dataset

    world = World(seed)
    for split, rows in (("train", train), ("test", test)):
        (folder / split).mkdir(parents=True, exist_ok=True)
        Dataset.from_list([getattr(world, kind)() for _ in range(rows)]).to_parquet(folder / split / "part-0.parquet")
    return folder


@pytest.fixture(scope="session")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    def make(kind: str, train: int = 64, test: int = 16) -> Path:
        folder: Path = tmp_path_factory.mktemp(kind)
        return write_labels(folder, kind, train, test)

    return make


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random policy of two layers with the tokenizer of the embedded recipes."""
    from prm_gym.hosts.tiny import make_tiny_model

    folder: Path = tmp_path_factory.mktemp("model") / "untrained"
    world = World()
    rows = [world.prompts() for _ in range(200)]
    texts = [m["content"] for row in rows for m in row["exploration_prompt"]]
    texts += [world.action(verb)[0]["content"] for verb in ("take", "drop") for _ in range(100)]
    make_tiny_model(folder, texts, hidden_size=32, layers=2, heads=2)
    return folder


@dataclass
class Run:
    """A finished run of the launcher."""

    status: int
    log: str
    out: Path

    @property
    def metrics(self) -> list[dict[str, float]]:
        return [json.loads(line) for line in (self.out / "metrics.jsonl").read_text("utf-8").splitlines()]


@pytest.fixture(scope="session")
def launch(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Run]:
    """Run a stage on the checkout in a process of its own, killed after `limit` seconds."""

    def run(
        stage: str, recipe: dict[str, Any], *, program: str | None = None, prefix: list[str] | None = None, limit: int = 240
    ) -> Run:
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

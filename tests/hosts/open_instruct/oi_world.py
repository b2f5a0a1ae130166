"""A toy world for the host: rows of every label kind, and the files that a run of the launcher leaves."""

from __future__ import annotations

import json
import os
import random
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
HOST_PYTHON = os.environ.get("PRM_GYM_HOST_PYTHON", sys.executable)


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


def sft_recipe(model: Path, dataset: Path, **changes: Any) -> dict[str, Any]:
    """Settings of SFT that teach `World`'s actions to a policy that knows nothing."""
    return {
        "model_name_or_path": str(model), "dataset_mixer_list": [str(dataset), "1.0"],
        "torch_dtype": "float32", "use_flash_attn": False, "max_seq_length": 200, "learning_rate": 1e-2,
        "per_device_train_batch_size": 16, "gradient_accumulation_steps": 1, "num_train_epochs": 4, **changes,
    }  # fmt: skip


@dataclass
class Run:
    """A finished run of the launcher."""

    status: int
    log: str
    out: Path

    @property
    def metrics(self) -> list[dict[str, float]]:
        return [json.loads(line) for line in (self.out / "metrics.jsonl").read_text("utf-8").splitlines()]


def share_of_takes(model: Path) -> float:
    """The share of the policy's responses that take something, and end."""
    import torch
    from transformers import AutoTokenizer

    from prm_gym.hosts.open_instruct.generators import TransformersGenerator
    from prm_gym.prompts.chat import prompt_ids

    tokenizer = AutoTokenizer.from_pretrained(model)
    policy = TransformersGenerator(
        str(model), dtype=torch.float32, device="cpu", temperature=1.0, length=12, stop_id=tokenizer.eos_token_id
    )
    world = World(11)
    prompts = [prompt_ids(tokenizer, world.prompt()) for _ in range(150)]
    texts = [tokenizer.decode(ids) for ids in policy.generate(prompts, seed=0)]
    return sum(text.startswith("ACTION: take") and text.endswith("<|end|>") for text in texts) / len(texts)

"""Stage 2 on TRL: the inputs of the four losses, against their formulas row by row."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl", reason="needs the extra 'trl'")
import datasets
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from prm_gym.errors import UserError
from prm_gym.hosts.tiny_model import make_tiny_model
from prm_gym.hosts.trl import prm

GAMMA = 0.9
SEEN = ["On the shelf 1, you see a mug 1. Task: put a mug in desk.", "Nothing happens. Task: put a mug in desk."]
ACTIONS = ["take mug 1 from shelf 1", "look", "go to desk 1"]
Message = dict[str, str]


def user(text: str) -> list[Message]:
    return [{"role": "user", "content": text}]


def assistant(text: str) -> list[Message]:
    return [{"role": "assistant", "content": text}]


SOFT_BCE = [
    {"prompt": user(SEEN[0]), "completion": assistant(ACTIONS[0]), "target": 0.9},
    {"prompt": user(SEEN[1]), "completion": assistant(ACTIONS[1]), "target": 0.0},
    {"prompt": user(SEEN[0]), "completion": assistant(ACTIONS[2]), "target": 0.35},
]
VALUE = [{"prompt": user(SEEN[0]), "target": 0.25}, {"prompt": user(SEEN[1]), "target": 1.0}]
PAIRS = [
    {"prompt": user(SEEN[0]), "chosen": assistant(ACTIONS[0]), "rejected": assistant(ACTIONS[1])},
    {"prompt": user(SEEN[1]), "chosen": assistant(ACTIONS[2]), "rejected": assistant(ACTIONS[0])},
    {"prompt": user(SEEN[0]), "chosen": assistant(ACTIONS[0]), "rejected": assistant(ACTIONS[2])},
    {"prompt": user(SEEN[0]), "chosen": assistant(ACTIONS[2]), "rejected": assistant(ACTIONS[1])},
    {"prompt": user(SEEN[1]), "chosen": assistant(ACTIONS[2]), "rejected": assistant("")},  # it ended at once
]
INVERSE = [
    {
        "prompt": user(SEEN[0]),
        "completion": assistant(ACTIONS[0]),
        "next_prompt": user(SEEN[1]),
        "next_completion": assistant(ACTIONS[1]),
        "terminated": False,
        "expert": False,
    },
    {
        "prompt": user(SEEN[1]),
        "completion": assistant(ACTIONS[2]),
        "next_prompt": [],
        "next_completion": [],
        "terminated": True,
        "expert": True,
    },
]
ROWS: dict[str, list[dict[str, Any]]] = {
    "soft_bce": SOFT_BCE,
    "value": VALUE,
    "bradley_terry": PAIRS,
    "inverse": INVERSE,
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tiny")
    make_tiny_model(out, [*SEEN, *ACTIONS] * 20, hidden_size=32, layers=1, heads=2)
    return out


def train(
    checkpoint: Path, folder: Path, loss: str, held_out: list[dict[str, Any]] | None = None, **options: Any
) -> dict[str, Any]:
    """One step on all rows at once; the lines of the log in one."""
    labels = folder / "labels"
    labels.mkdir()
    datasets.Dataset.from_list(ROWS[loss]).to_parquet(labels / "train.parquet")
    if held_out:
        datasets.Dataset.from_list(held_out).to_parquet(labels / "test.parquet")
    settings = {
        "model_name_or_path": checkpoint,
        "dataset_name": labels,
        "output_dir": folder / "prm",
        "loss": loss,
        "gamma": GAMMA,
        "max_steps": 1,
        "logging_steps": 1,
        "per_device_train_batch_size": 8,
        "save_strategy": "no",
        "use_cpu": True,
        "report_to": "none",
        **options,
    }
    prm.main([word for name, value in settings.items() for word in (f"--{name}", str(value))])
    state = folder / "prm" / "checkpoint-1" / "trainer_state.json"
    log: list[dict[str, Any]] = json.loads(state.read_text())["log_history"]
    return {key: value for line in log for key, value in line.items()}


def sequence(tokenizer: Any, prompt: list[Message], response: list[Message]) -> torch.Tensor:
    """Its ids [1, length], without the token that ends the turn."""
    text = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
    text += response[0]["content"] if response else ""
    return tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids


def by_hand(checkpoint: Path, loss: str, rows: list[dict[str, Any]] | None = None) -> float:
    """The loss of the untrained model on all rows or on `rows`, each sequence alone and unpadded."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    rows = ROWS[loss] if rows is None else rows
    torch.manual_seed(42)  # transformers' default seed
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint, num_labels=1, dtype=torch.float32)
    model.config.pad_token_id = tokenizer.pad_token_id

    def q(prompt: list[Message], response: list[Message]) -> float:
        with torch.no_grad():
            return float(model(sequence(tokenizer, prompt, response)).logits)

    def cross_entropy(logit: float, target: float) -> float:
        p = 1 / (1 + math.exp(-logit))
        return -target * math.log(p) - (1 - target) * math.log(1 - p)

    total = 0.0
    for row in rows:
        if loss == "soft_bce":
            total += cross_entropy(q(row["prompt"], row["completion"]), row["target"])
        elif loss == "value":
            total += cross_entropy(q(row["prompt"], []), row["target"])
        elif loss == "bradley_terry":
            total += cross_entropy(q(row["prompt"], row["chosen"]) - q(row["prompt"], row["rejected"]), 1)
        else:
            after = 0 if row["terminated"] else q(row["next_prompt"], row["next_completion"])
            total += cross_entropy(q(row["prompt"], row["completion"]) - GAMMA * after, row["expert"])
    return total / len(rows)


@pytest.mark.parametrize("loss", ROWS)
def test_the_loss_is_that_of_its_formula(checkpoint: Path, tmp_path: Path, loss: str) -> None:
    log = train(checkpoint, tmp_path, loss, save_strategy="steps", save_steps=1)
    assert log["loss"] == pytest.approx(by_hand(checkpoint, loss), abs=1e-4)


def test_gradient_checkpointing_leaves_the_loss_of_pairs_as_it_is(checkpoint: Path, tmp_path: Path) -> None:
    log = train(checkpoint, tmp_path, "bradley_terry", save_strategy="steps", save_steps=1, gradient_checkpointing=True)
    assert log["loss"] == pytest.approx(by_hand(checkpoint, "bradley_terry"), abs=1e-4)


TURNS = [  # two turns of one episode, and one of another
    {"prompt": user(SEEN[0]), "completion": assistant(ACTIONS[1]), "target": 0.0},
    {"prompt": user(SEEN[0]) + assistant(ACTIONS[1]) + user(SEEN[1]), "completion": assistant("look"), "target": 0.9},
    SOFT_BCE[0],
]


@pytest.mark.parametrize(("loss", "rows"), [("soft_bce", TURNS), ("inverse", INVERSE)])
def test_the_loss_of_held_out_rows_is_their_mean(
    checkpoint: Path, tmp_path: Path, loss: str, rows: list[dict[str, Any]]
) -> None:
    """In batches of one episode, with different numbers of rows or of sequences."""
    watched = {"eval_strategy": "steps", "eval_steps": 1, "per_device_eval_batch_size": 1, "learning_rate": 0.0}
    log = train(checkpoint, tmp_path, loss, rows, save_strategy="steps", save_steps=1, **watched)
    assert log["eval_loss"] == pytest.approx(by_hand(checkpoint, loss, rows), abs=1e-4)


@pytest.mark.parametrize("beyond", [0, 1])
def test_rows_up_to_the_length_are_trained_on(checkpoint: Path, tmp_path: Path, beyond: int) -> None:
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    lengths = [sequence(tokenizer, row["prompt"], row["completion"]).shape[1] for row in SOFT_BCE]
    limit = max(lengths) - beyond
    kept = [row for row, length in zip(SOFT_BCE, lengths, strict=True) if length <= limit]
    log = train(checkpoint, tmp_path, "soft_bce", save_strategy="steps", save_steps=1, max_length=limit)
    assert len(kept) == len(SOFT_BCE) - beyond
    assert log["loss"] == pytest.approx(by_hand(checkpoint, "soft_bce", kept), abs=1e-4)


@pytest.mark.parametrize("loss", ["soft_bce", "bradley_terry"])
def test_a_length_that_leaves_no_row_is_refused(checkpoint: Path, tmp_path: Path, loss: str) -> None:
    with pytest.raises(UserError, match=r"^prm: max_length: 3 leaves out all \d rows of train"):
        train(checkpoint, tmp_path, loss, max_length=3)


def test_an_unknown_loss_is_named(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^prm: loss: no loss 'bce'; choose one of soft_bce, value"):
        prm.main(["--model_name_or_path", str(checkpoint), "--dataset_name", "labels", "--loss", "bce",
                  "--output_dir", str(tmp_path), "--use_cpu", "true", "--report_to", "none"])  # fmt: skip

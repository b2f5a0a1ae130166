"""The probability of a failure is that of the model's next token after the end of its turn."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("transformers", reason="needs the extra 'trl'")
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from experiments.failed_actions import probabilities
from prm_gym.hosts.tiny_model import make_tiny_model
from prm_gym.types import State

SEEN = "On the shelf 1, you see a mug 1."


def test_it_is_the_probability_of_the_first_token_of_failure(tmp_path: Path) -> None:
    make_tiny_model(
        tmp_path, [SEEN, "Nothing happens.", "go to shelf 1", "look"] * 20, hidden_size=16, layers=1, heads=2
    )
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    state = State("game", "put a mug in desk.", (SEEN,), (), ("look",))
    found = probabilities(str(tmp_path), [(state, action, action, False) for action in ("look", "go to shelf 1")])
    for action, p in zip(("look", "go to shelf 1"), found, strict=True):
        text = f"{SEEN} Task: put a mug in desk.<|assistant|>{action}<|end|>"
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
        with torch.no_grad():
            following = model(ids).logits[0, -1].softmax(-1)
        wanted = sum(float(following[i]) for i in range(len(tokenizer)) if tokenizer.decode([i]).startswith("Nothing"))
        assert p == pytest.approx(wanted, rel=1e-4)
        assert 0 < p < 1

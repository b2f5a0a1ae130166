"""Stage 3 by policy gradient on TRL: one step against the gradient of Eq. 3, written out over the sampled responses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl", reason="needs the extra 'trl'")
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from trl import RLOOTrainer

from prm_gym import provenance
from prm_gym.errors import UserError
from prm_gym.hosts.tiny_model import make_tiny_model
from prm_gym.hosts.trl import policy_gradient

SEEN = ["On the shelf 1, you see a mug 1.", "You are in a room."]
SAID = ["go", "go to shelf 1", "look at the mug 1 on the shelf 1"]
PER_PROMPT = 4


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tiny")
    make_tiny_model(out, [*SEEN, *SAID] * 20, hidden_size=32, layers=1, heads=2)
    tokenizer = AutoTokenizer.from_pretrained(out)
    policy = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-2)
    for step in range(60):  # so that some responses end
        chat = [{"role": "user", "content": SEEN[step % 2]}, {"role": "assistant", "content": SAID[step % 3]}]
        ids = tokenizer.apply_chat_template(chat, return_tensors="pt", return_dict=False)
        policy(ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    policy.save_pretrained(out)
    return out


@pytest.fixture(scope="module")
def prm(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    out = tmp_path_factory.mktemp("prm")
    AutoModelForSequenceClassification.from_pretrained(checkpoint, num_labels=1).save_pretrained(out)
    AutoTokenizer.from_pretrained(checkpoint).save_pretrained(out)
    return out


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prompts")
    rows = [{"prompt": [{"role": "user", "content": text}]} for text in SEEN]
    Dataset.from_list(rows * 2).to_parquet(str(folder / "train.parquet"))
    return folder


def train(checkpoint: Path, prm: Path, prompts: Path, out: Path) -> None:
    options = {
        "model_name_or_path": checkpoint, "reward_model_path": prm, "dataset_name": prompts, "output_dir": out,
        "max_steps": 1, "per_device_train_batch_size": 2 * PER_PROMPT, "num_generations": PER_PROMPT,
        "max_completion_length": 4, "temperature": 0.8, "beta": 0.1, "optim": "sgd", "learning_rate": 1.0,
        "lr_scheduler_type": "constant", "max_grad_norm": 1e9, "use_cpu": True, "bf16": False,
        "gradient_checkpointing": False, "report_to": "none", "logging_steps": 1, "save_steps": 1,
    }  # fmt: skip
    policy_gradient.main([text for name, value in options.items() for text in (f"--{name}", str(value))])


def test_a_step_follows_the_gradient_of_equation_3(
    checkpoint: Path, prm: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """REINFORCE with a leave-one-out baseline; at the first step the KL term is 0. What Q reads is the response without
    the end of its turn.
    """
    sampled: list[tuple[list[int], list[int]]] = []
    generate = RLOOTrainer._generate

    def spy(self: Any, *arguments: Any, **options: Any) -> Any:
        found = generate(self, *arguments, **options)
        sampled.extend(zip(found[0], found[1], strict=True))
        return found

    monkeypatch.setattr(RLOOTrainer, "_generate", spy)
    train(checkpoint, prm, prompts, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    policy = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    q = AutoModelForSequenceClassification.from_pretrained(prm, dtype=torch.float32)
    loss: Any = 0.0
    counted = 0
    scores: list[float] = []
    for group in (sampled[:PER_PROMPT], sampled[PER_PROMPT:]):
        assert len({tuple(prompt) for prompt, _ in group}) == 1
        ended = [(prompt, ids) for prompt, ids in group if ids[-1] == tokenizer.eos_token_id]
        with torch.no_grad():
            rewards = [q(torch.tensor([prompt + ids[:-1]]), use_cache=False).logits.item() for prompt, ids in ended]
        scores += rewards
        for (prompt, ids), reward in zip(ended, rewards, strict=True):
            if len(ended) == 1:
                break
            counted += 1
            baseline = (sum(rewards) - reward) / (len(rewards) - 1)
            logits = policy(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1] / 0.8
            log_pi = logits.log_softmax(-1).gather(1, torch.tensor(ids)[:, None]).sum()
            loss = loss - (reward - baseline) * log_pi / len(sampled)
    logged = json.loads((tmp_path / "checkpoint-1" / "trainer_state.json").read_text())["log_history"][0]
    assert logged["objective/scores"] == pytest.approx(sum(scores) / len(scores), abs=1e-4)
    assert 2 <= counted < len(sampled) == 2 * PER_PROMPT  # some were cut off
    loss.backward()
    after = dict(AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).named_parameters())
    for name, parameter in policy.named_parameters():
        assert parameter.grad is not None
        moved = parameter.detach() - after[name].detach()
        torch.testing.assert_close(moved, parameter.grad, atol=2e-5, rtol=2e-3, msg=name)
    assert max(parameter.grad.abs().max().item() for parameter in policy.parameters()) > 1e-3  # type: ignore[union-attr]


def test_a_q_that_read_other_tokens_is_refused(checkpoint: Path, prm: Path, prompts: Path, tmp_path: Path) -> None:
    old = shutil.copytree(prm, tmp_path / "old")
    provenance.write(old, {"kind": "training", "stage": "prm"})
    with pytest.raises(UserError, match=r"old/provenance.json: reads: "):
        train(checkpoint, old, prompts, tmp_path / "out")

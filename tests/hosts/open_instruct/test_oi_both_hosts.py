"""open-instruct and TRL on the same data: Q reads the same ids wherever it is asked, and their losses agree.

Both hosts at once need TRL here and open-instruct's own interpreter in PRM_GYM_HOST_PYTHON; `make test-host` has both.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from oi_world import HOST_PYTHON, Run

pytest.importorskip("trl", reason="needs the extra 'trl': the other host")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from prm_gym import prompts  # noqa: E402
from prm_gym.hosts.losses import FIRST  # noqa: E402
from prm_gym.hosts.open_instruct import checkpoint_format, preflight  # noqa: E402
from prm_gym.hosts.scored_rows import soft_bce_row  # noqa: E402
from prm_gym.prm.in_process import PRMScorer  # noqa: E402
from prm_gym.prompts.chat import prompt_ids  # noqa: E402
from prm_gym.types import Response, State  # noqa: E402

Labels = Callable[..., Path]
STATES = [
    State("g", "put a mug in desk", ("You see a mug 1.",), (), ("look",)),
    State("g", "put a mug in desk", ("You see a mug 1.", "You see a desk 1."), ("look",), ("look",)),
]
RESPONSES = ["take mug 1 from desk 1", "REASON: a plan.\nACTION: take mug", "", "odd: \u00e9\u00e8 <|none|> \U0001f9e0"]


@pytest.fixture(scope="module")
def prm(untrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PRM with a random head, written by this environment's transformers."""
    folder: Path = tmp_path_factory.mktemp("prm") / "prm"
    shutil.copytree(untrained, folder)
    torch.manual_seed(0)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        untrained, num_labels=1, problem_type="multi_label_classification", dtype=torch.float32
    )
    model.config.pad_token_id = 0
    model.save_pretrained(folder)
    return folder


def test_q_reads_the_same_ids_on_both_hosts_and_in_best_of_n(prm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In training and Stage 3 of either host. (That open-instruct's Stage 3 scores sampled ids unchanged is tested on
    its own run; here they are the ids of the response's text.)
    """
    tokenizer = preflight.load_tokenizer(str(prm), None, "model_name_or_path")
    template = prompts.load("compact")
    read: list[list[int]] = []
    logits = PRMScorer._logits_of

    def spy(self: PRMScorer, texts: Any) -> list[float]:
        read.extend([int(i) for i in ids] for ids in texts)
        return logits(self, texts)

    monkeypatch.setattr(PRMScorer, "_logits_of", spy)
    scorer = PRMScorer(prm, prompt="compact")
    for state in STATES:
        for text in RESPONSES:
            prompt, completion = template.messages(state), [{"role": "assistant", "content": text}]
            row = {"prompt": prompt, "completion": completion}
            training = soft_bce_row(row, tokenizer)[FIRST]
            sampled = tokenizer.encode(text, add_special_tokens=False)
            stage_3 = [*prompt_ids(tokenizer, prompt), *sampled]
            *whole, end = tokenizer.apply_chat_template(prompt + completion, tokenize=True, return_dict=False)
            assert end == tokenizer.eos_token_id
            asyncio.run(scorer.score([(state, Response(text, "", text))]))
            assert [training, stage_3, whole, read[-1]] == [training] * 4, text
    assert len(read) == len(STATES) * len(RESPONSES)


def test_their_soft_bce_losses_agree(
    checkout: Path, launch: Callable[..., Run], prm: Path, labels: Labels, tmp_path: Path
) -> None:
    """Four updates on a batch of all rows, from one PRM, by each host's own trainer in its own environment."""
    if sys.executable == HOST_PYTHON:
        pytest.skip("PRM_GYM_HOST_PYTHON does not name open-instruct's own interpreter")
    rows, steps = 24, 4
    data = labels("monte_carlo", rows)
    shared = {"model_name_or_path": str(prm), "per_device_train_batch_size": rows, "learning_rate": 1.0e-3, "seed": 0}
    shared |= {"gradient_accumulation_steps": 1, "num_train_epochs": steps, "lr_scheduler_type": "constant"}
    mixer = [str(data), "1.0"]
    theirs = launch("reward_modeling", {**shared, "dataset_mixer_list": mixer, "max_token_length": 200})
    assert theirs.status == 0, theirs.log[-3000:]
    config = {
        **shared, "dataset_name": str(data), "output_dir": str(tmp_path / "trl"), "max_length": 200, "use_cpu": True,
        "adam_epsilon": 1.0e-5, "weight_decay": 0.01, "max_grad_norm": 0.0, "logging_steps": 1, "eval_strategy": "no",
        "save_strategy": "epoch", "save_total_limit": 1, "report_to": "none", "disable_tqdm": True,
    }  # fmt: skip
    (tmp_path / "prm.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "prm_gym.hosts.trl", "prm", "--config", str(tmp_path / "prm.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    state = json.loads((tmp_path / "trl" / f"checkpoint-{steps}" / "trainer_state.json").read_text())
    ours = [entry["loss"] for entry in state["log_history"] if "loss" in entry]
    found = [line["train/rm/loss"] for line in theirs.metrics if "train/rm/loss" in line]
    assert len(found) == steps
    assert found == pytest.approx(ours, abs=1e-4)
    assert found[0] - found[-1] > 1e-3  # something was learnt in between


def test_gemma_3_computes_the_same_in_both(checkout: Path, tmp_path: Path) -> None:
    """Its layers have rotary embeddings of two kinds; other positions would show beyond the first token."""
    if sys.executable == HOST_PYTHON:
        pytest.skip("PRM_GYM_HOST_PYTHON does not name open-instruct's own interpreter")
    torch.manual_seed(0)
    config = transformers.Gemma3TextConfig(
        vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, head_dim=8,
        num_key_value_heads=1, sliding_window=8, layer_types=["sliding_attention", "full_attention"],
        rope_parameters={
            "full_attention": {"rope_type": "default", "rope_theta": 5e3},
            "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
        },
    )  # fmt: skip
    model = transformers.Gemma3ForCausalLM(config).eval()
    for parameter in model.parameters():
        parameter.data.mul_(6)  # so that positions matter
    model.save_pretrained(tmp_path / "pi_0")
    view = checkpoint_format.for_host(str(tmp_path / "pi_0"), tmp_path / "data")
    code = (
        "import sys, torch, transformers\n"
        "model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32).eval()\n"
        "print(model(torch.arange(40)[None]).logits[0, -1].tolist())"
    )
    done = subprocess.run([HOST_PYTHON, "-c", code, str(view)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    with torch.no_grad():
        ours = model(torch.arange(40)[None]).logits[0, -1].tolist()
    assert json.loads(done.stdout.splitlines()[-1]) == pytest.approx(ours, abs=1e-4)

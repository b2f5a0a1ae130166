"""Stage 2 and SFT on the real checkout: four losses, warm start, checkpoints, two processes, the other host's loss."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from oi_world import HOST_PYTHON, Run, sft_recipe

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
Launch = Callable[..., Run]
Labels = Callable[..., Path]
TWO_PROCESSES = [
    HOST_PYTHON, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
    "-m", "prm_gym.hosts.open_instruct",
]  # fmt: skip


def recipe(model: Path, labels: Path, **changes: Any) -> dict[str, Any]:
    return {
        "model_name_or_path": str(model),
        "dataset_mixer_list": [str(labels), "1.0"],
        "dataset_mixer_eval_list": [str(labels), "1.0"],
        "dataset_mixer_eval_list_splits": ["test"],
        "max_token_length": 200,
        "learning_rate": 3.0e-3,
        "per_device_train_batch_size": 16,
        "per_device_eval_batch_size": 16,
        "gradient_accumulation_steps": 1,
        "num_train_epochs": 6,
        **changes,
    }


@pytest.fixture(scope="module")
def monte_carlo(labels: Labels) -> Path:
    return labels("monte_carlo", 64)


@pytest.fixture(scope="module")
def prm(launch: Launch, untrained: Path, monte_carlo: Path) -> Run:
    return launch("reward_modeling", recipe(untrained, monte_carlo, num_evals=2))


def test_soft_bce_learns_the_targets(prm: Run) -> None:
    assert prm.status == 0, prm.log[-3000:]
    last = prm.metrics[-1]
    assert last["eval/rm/auc"] == 1.0  # the targets are 0.9 and 0.1
    assert last["eval/rm/calibration_error"] < 0.15
    assert last["train/rm/lr"] == 0.0  # the schedule ends with training, also after several epochs


def test_what_a_finished_run_leaves(prm: Run) -> None:
    names = {path.name for path in prm.out.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "metrics.jsonl", "logs"} <= names
    assert not names & {"data", "checkpoint", "pytorch_model.bin"}
    assert not [name for name in names if name.startswith("reward_modeling")]
    config = json.loads((prm.out / "config.json").read_text())
    assert config["architectures"] == ["LlamaForSequenceClassification"]
    assert config["pad_token_id"] == 0


@pytest.mark.parametrize(
    ("kind", "loss", "metric"),
    [("preferences", "bradley_terry", "pair_accuracy"), ("inverse", "inverse", "auc"), ("value", "value", "auc")],
)
def test_the_other_losses_learn(
    launch: Launch, labels: Labels, untrained: Path, kind: str, loss: str, metric: str
) -> None:
    run = launch("reward_modeling", recipe(untrained, labels(kind, 64), loss=loss))
    assert run.status == 0, run.log[-3000:]
    assert run.metrics[-1][f"eval/rm/{metric}"] > 0.9


def head(folder: Path) -> Any:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")["score.weight"]


def test_warm_start_keeps_the_score_head(launch: Launch, prm: Run, monte_carlo: Path, untrained: Path) -> None:
    """Without learning, what comes out is what went in; from a policy the head is drawn."""
    still = {"learning_rate": 0.0, "num_train_epochs": 1, "dataset_mixer_eval_list": []}
    warm = launch("reward_modeling", recipe(prm.out, monte_carlo, **still))
    assert torch.equal(head(warm.out), head(prm.out))
    cold = launch("reward_modeling", recipe(untrained, monte_carlo, **still))
    assert head(cold.out).abs().sum().item() > 0
    assert not torch.equal(head(cold.out), head(prm.out))


def test_both_hosts_agree_on_the_loss(launch: Launch, prm: Run, labels: Labels) -> None:
    """One batch of all rows, no learning: the loss logged is that of transformers on the ids of hosts/trl."""
    folder = labels("monte_carlo", 24)
    run = launch(
        "reward_modeling",
        recipe(prm.out, folder, learning_rate=0.0, num_train_epochs=1, per_device_train_batch_size=24),
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(prm.out)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        prm.out, num_labels=1, problem_type="multi_label_classification"
    )
    from datasets import load_dataset

    rows = load_dataset(str(folder), split="train")
    chats = [prompt + completion for prompt, completion in zip(rows["prompt"], rows["completion"], strict=True)]
    ids = [tokenizer.apply_chat_template(chat, return_dict=False)[:-1] for chat in chats]  # without the end
    batch = tokenizer.pad({"input_ids": ids}, padding_side="right", return_tensors="pt")
    with torch.no_grad():
        theirs = model(**batch, labels=torch.tensor(rows["target"])[:, None].float()).loss.item()
    assert run.metrics[0]["train/rm/loss"] == pytest.approx(theirs, abs=1e-4)


def test_two_processes_agree_with_one(
    launch: Launch, prm: Run, labels: Labels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same global batch, 16 rows, in one process or in two over gloo: the same loss at each of four updates."""
    settings = recipe(prm.out, labels("monte_carlo", 16), num_train_epochs=4)
    one = launch("reward_modeling", settings)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    two = launch(
        "reward_modeling",
        {**settings, "per_device_train_batch_size": 8},
        prefix=TWO_PROCESSES,
    )
    assert two.status == 0, two.log[-3000:]
    losses = [[line["train/rm/loss"] for line in run.metrics] for run in (one, two)]
    assert len(losses[0]) == len(losses[1]) == 4
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert one.metrics[-1]["eval/rm/loss"] == pytest.approx(two.metrics[-1]["eval/rm/loss"], abs=1e-5)
    assert not list(two.out.glob("reward_modeling__*"))  # nothing of the other process stays


def test_a_crash_leaves_the_last_evaluation_s_checkpoint(launch: Launch, untrained: Path, monte_carlo: Path) -> None:
    program = """
import os, runpy, sys
sys.path.insert(0, os.environ["OPEN_INSTRUCT"])
from open_instruct import reward_modeling
reward_modeling.save_with_accelerate = lambda *_: 1 / 0
runpy.run_module("prm_gym.hosts.open_instruct", run_name="__main__", alter_sys=True)
"""
    run = launch("reward_modeling", recipe(untrained, monte_carlo), program=program)
    assert run.status == 1
    assert "ZeroDivisionError" in run.log
    assert not (run.out / "config.json").exists()
    model = transformers.AutoModelForSequenceClassification.from_pretrained(run.out / "checkpoint")
    assert model.score.weight.shape[0] == 1
    transformers.AutoTokenizer.from_pretrained(run.out / "checkpoint")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rat": 1e-3}, "learning_rat: unknown key; did you mean 'learning_rate'?"),
        ({"loss": "hinge"}, "loss: 'hinge' is not one of soft_bce, bradley_terry, inverse, value"),
        ({"model_name_or_path": "/nowhere"}, "/nowhere: model_name_or_path: no tokenizer to load"),
    ],
)
def test_bad_recipes_are_one_line(
    launch: Launch, untrained: Path, monte_carlo: Path, changes: dict[str, Any], message: str
) -> None:
    run = launch("reward_modeling", recipe(untrained, monte_carlo, **changes))
    assert run.status == 2
    assert message in run.log
    assert "Traceback" not in run.log


def test_sft_teaches_the_policy(launch: Launch, untrained: Path, labels: Labels) -> None:
    run = launch("sft", sft_recipe(untrained, labels("sft", 128)))
    assert run.status == 0, run.log[-3000:]
    from oi_world import World

    from prm_gym.hosts.open_instruct.generators import TransformersGenerator
    from prm_gym.prompts.chat import prompt_ids

    tokenizer = transformers.AutoTokenizer.from_pretrained(run.out)
    policy = TransformersGenerator(
        str(run.out), dtype=torch.float32, device="cpu", temperature=0.5, length=12, stop_id=tokenizer.eos_token_id
    )
    world = World(7)
    responses = policy.generate([prompt_ids(tokenizer, world.prompt()) for _ in range(40)], seed=0)
    texts = [tokenizer.decode(ids) for ids in responses]
    assert sum(text.startswith(("ACTION: take", "ACTION: drop")) for text in texts) > 30


def test_two_processes_end_well_with_a_tracker(
    launch: Launch, untrained: Path, labels: Labels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host leaves the process group itself when it is told to track."""
    pytest.importorskip("wandb", reason="what the host's SFT tracks with")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setenv("WANDB_MODE", "offline")
    tracked = sft_recipe(
        untrained, labels("sft", 128), num_train_epochs=1, with_tracking=True, report_to="wandb", wandb_entity="nobody"
    )
    run = launch("sft", tracked, prefix=TWO_PROCESSES)
    assert run.status == 0, run.log[-3000:]
    assert (run.out / "config.json").exists()

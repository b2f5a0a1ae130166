"""Stage 3 on TRL: the prompts of Steered Exploration, the training data, and the mean of several Qs."""

import math
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("trl", reason="needs the extra 'trl'")
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from trl.experimental.online_dpo import OnlineDPOTrainer

from prm_gym import provenance
from prm_gym.errors import UserError
from prm_gym.hosts.tiny_model import make_tiny_model
from prm_gym.hosts.trl import online_dpo
from prm_gym.hosts.trl.exploration_prompts import steered
from prm_gym.hosts.trl.tokenization import scored_as_trained

PLAIN, STEERED = "On the shelf 1, you see a mug 1.", "Explore. On the shelf 1, you see a mug 1."


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tiny")
    make_tiny_model(out, [PLAIN, STEERED, "go to shelf 1"] * 20, hidden_size=32, layers=1, heads=2)
    return out


@pytest.fixture(scope="module")
def prms(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folders = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = AutoModelForSequenceClassification.from_pretrained(checkpoint, num_labels=1)
        folders.append(tmp_path_factory.mktemp(f"prm{seed}"))
        model.save_pretrained(folders[-1])
        AutoTokenizer.from_pretrained(checkpoint).save_pretrained(folders[-1])
    return folders


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prompts")
    row = {
        name: [{"role": "user", "content": text}] for name, text in (("prompt", PLAIN), ("exploration_prompt", STEERED))
    }
    Dataset.from_list([row] * 8).to_parquet(str(folder / "train.parquet"))
    return folder


def train(checkpoint: Path, prms: list[Path], prompts: Path, out: Path, *more: str) -> None:
    options = {
        "model_name_or_path": checkpoint, "reward_model_path": prms[0], "dataset_name": prompts, "output_dir": out,
        "max_steps": 1, "per_device_train_batch_size": 4, "max_new_tokens": 4, "use_cpu": True, "bf16": False,
        "gradient_checkpointing": False, "report_to": "none", "save_strategy": "no",
    }  # fmt: skip
    online_dpo.main([*(text for name, value in options.items() for text in (f"--{name}", str(value))), *more])


def ids(checkpoint: Path, text: str) -> list[int]:
    chat = [{"role": "user", "content": text}]
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    return list(tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)["input_ids"])


@pytest.mark.parametrize(("probability", "sampled"), [("1.0", STEERED), ("0.0", PLAIN)])
def test_steering_changes_what_is_sampled_from_and_not_what_is_trained_on(
    probability: str,
    sampled: str,
    checkpoint: Path,
    prms: list[Path],
    prompts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: dict[str, Any] = {}
    generate, forward = type(AutoModelForCausalLM.from_pretrained(checkpoint)).generate, OnlineDPOTrainer._forward

    def spy_generate(self: Any, *, input_ids: Any, **options: Any) -> Any:
        seen["generate"] = input_ids.tolist()
        return generate(self, input_ids=input_ids, **options)

    def spy_forward(self: Any, model: Any, prompt_ids: Any, *rest: Any) -> Any:
        seen["forward"] = prompt_ids.tolist()
        return forward(self, model, prompt_ids, *rest)

    monkeypatch.setattr(type(AutoModelForCausalLM.from_pretrained(checkpoint)), "generate", spy_generate)
    monkeypatch.setattr(OnlineDPOTrainer, "_forward", spy_forward)
    train(checkpoint, prms, prompts, tmp_path, "--exploration_probability", probability)
    assert seen == {"generate": [ids(checkpoint, sampled)] * 8, "forward": [ids(checkpoint, PLAIN)] * 8}


def test_the_reward_of_an_ensemble_is_the_mean_of_its_qs(
    checkpoint: Path, prms: list[Path], prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[tuple[list[Any], torch.Tensor]] = []

    def spied(trainer: type[Any]) -> type[Any]:
        class Spy(scored_as_trained(trainer)):  # type: ignore[misc]
            def _calculate_rewards_from_functions(self, prompts: Any, completions: Any, **given: Any) -> torch.Tensor:
                rewards = super()._calculate_rewards_from_functions(prompts, completions, **given)
                found.append(([p + c for p, c in zip(prompts, completions, strict=True)], rewards))
                return found[-1][1]

        return Spy

    monkeypatch.setattr(online_dpo, "scored_as_trained", spied)
    train(checkpoint, prms, prompts, tmp_path, "--reward_ensemble", str(prms[1]))
    [(chats, reward)] = found
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    models = [AutoModelForSequenceClassification.from_pretrained(folder).eval() for folder in prms]
    for chat, mean in zip(chats, reward.tolist(), strict=True):
        *ids, end = tokenizer.apply_chat_template(chat, return_dict=False)
        assert end == tokenizer.eos_token_id
        sequence = torch.tensor([ids])
        with torch.no_grad():
            each = [model(input_ids=sequence).logits.item() for model in models]
        assert each[0] != pytest.approx(each[1], abs=1e-4)
        assert mean == pytest.approx(sum(each) / 2, abs=1e-4)


def test_the_logged_figures_are_of_the_responses_without_their_padding(
    checkpoint: Path, prms: list[Path], prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(checkpoint).eval(),
        AutoTokenizer.from_pretrained(checkpoint),
    )
    generate, sampled, logged = type(model).generate, list[list[int]](), dict[str, float]()

    def one_is_short(self: Any, **options: Any) -> Any:
        out = generate(self, **options)
        out[0, -3] = tokenizer.eos_token_id
        sampled.extend(out.tolist())
        return out

    def spied(trainer: type[Any]) -> type[Any]:
        class Spy(scored_as_trained(trainer)):  # type: ignore[misc]
            def log(self, logs: dict[str, float], *more: Any) -> None:
                logged.update(logs)
                super().log(logs, *more)

        return Spy

    monkeypatch.setattr(type(model), "generate", one_is_short)
    monkeypatch.setattr(online_dpo, "scored_as_trained", spied)
    train(checkpoint, prms, prompts, tmp_path, "--logging_steps", "1", "--temperature", "1.0")
    length = len(ids(checkpoint, PLAIN))
    found = []
    for row in sampled:
        end = row.index(tokenizer.eos_token_id, length) + 1 if tokenizer.eos_token_id in row[length:] else len(row)
        sequence = torch.tensor([row[:end]])
        with torch.no_grad():
            values = model(input_ids=sequence).logits[0, :-1].log_softmax(-1)
        found.append(values[torch.arange(length - 1, end - 1), sequence[0, length:]].sum().item())
    assert logged["objective/entropy"] == pytest.approx(-sum(found) / len(found), rel=1e-4)
    assert logged["objective/kl"] == pytest.approx(0, abs=1e-5)


def test_steering_is_drawn_for_each_row_of_a_step() -> None:
    """A step may be several batches, which gradients are summed over."""

    class Trainer:
        args, state = SimpleNamespace(seed=0), SimpleNamespace(global_step=0)

        def training_step(self, *_: Any) -> None:
            pass

    trainer = steered(Trainer, 0.5)()
    drawn = []
    for row in range(400):
        trainer.training_step(None, {"prompt": [f"plain {row}"], "exploration_prompt": ["steered"]})
        drawn += trainer._sampled_from
    assert 160 < drawn.count("steered") < 240


def test_accumulated_gradients_are_a_mean(
    checkpoint: Path, prms: list[Path], prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two microbatches: at pi = pi_ref the loss of each is log 2, whatever is sampled."""
    losses: list[float] = []
    backward = torch.Tensor.backward

    def spy(loss: torch.Tensor, *args: Any, **kwargs: Any) -> None:
        losses.append(float(loss.detach()))
        backward(loss, *args, **kwargs)

    monkeypatch.setattr(torch.Tensor, "backward", spy)
    train(checkpoint, prms, prompts, tmp_path, "--gradient_accumulation_steps", "2")
    assert losses == pytest.approx([math.log(2) / 2] * 2)


def test_stage_3_without_a_q_is_refused(checkpoint: Path, prompts: Path, tmp_path: Path) -> None:
    names = ("--model_name_or_path", str(checkpoint), "--dataset_name", str(prompts))
    with pytest.raises(UserError, match=r"^online_dpo: reward_model_path: Stage 3 needs Q"):
        online_dpo.main([*names, "--output_dir", str(tmp_path), "--use_cpu", "true", "--bf16", "false"])


def test_a_share_of_steered_prompts_beyond_one_is_refused(
    checkpoint: Path, prms: list[Path], prompts: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"^online_dpo: exploration_probability: 1\.5"):
        train(checkpoint, prms, prompts, tmp_path, "--exploration_probability", "1.5")


def test_a_q_that_read_other_tokens_is_refused(
    checkpoint: Path, prms: list[Path], prompts: Path, tmp_path: Path
) -> None:
    old = shutil.copytree(prms[0], tmp_path / "old")
    provenance.write(old, {"kind": "training", "stage": "prm"})
    with pytest.raises(UserError, match=r"old/provenance.json: reads: "):
        train(checkpoint, [old], prompts, tmp_path / "out")

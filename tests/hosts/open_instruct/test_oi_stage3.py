"""Stage 3 on the real checkout: it improves the policy, trains on what was sampled, resumes, and ends when it fails."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from oi_world import Run, sft_recipe, share_of_takes

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
Launch = Callable[..., Run]
Labels = Callable[..., Path]


@pytest.fixture(scope="module")
def pi_0(launch: Launch, untrained: Path, labels: Labels) -> Path:
    run = launch("sft", sft_recipe(untrained, labels("sft", 128)))
    assert run.status == 0, run.log[-3000:]
    return run.out


@pytest.fixture(scope="module")
def q_0(launch: Launch, pi_0: Path, labels: Labels) -> Path:
    settings = {
        "model_name_or_path": str(pi_0), "dataset_mixer_list": [str(labels("monte_carlo", 64)), "1.0"],
        "max_token_length": 200, "learning_rate": 3e-3, "per_device_train_batch_size": 16,
        "gradient_accumulation_steps": 1, "num_train_epochs": 6,
    }  # fmt: skip
    run = launch("reward_modeling", settings)
    assert run.status == 0, run.log[-3000:]
    return run.out


@pytest.fixture(scope="module")
def recipe(pi_0: Path, q_0: Path, labels: Labels) -> Callable[..., dict[str, Any]]:
    prompts = str(labels("prompts", 64))

    def make(**changes: Any) -> dict[str, Any]:
        return {
            "model_name_or_path": str(pi_0), "reward_model_path": str(q_0), "torch_dtype": "float32",
            "dataset_mixer": {prompts: 1.0}, "dataset_train_splits": ["train"],
            "dataset_eval_mixer": {prompts: 1.0}, "dataset_eval_splits": ["test"],
            "max_prompt_token_length": 150, "response_length": 12, "temperature": 1.0, "stop_token": "eos",
            "learning_rate": 1e-3, "beta": 0.03, "per_device_train_batch_size": 16, "gradient_accumulation_steps": 1,
            "num_epochs": 2, "num_evals": 2, "total_episodes": 64, **changes,
        }  # fmt: skip

    return make


Recipe = Callable[..., dict[str, Any]]
PROGRAM = """
import json, os, runpy, sys
sys.path.insert(0, os.environ["OPEN_INSTRUCT"])
from open_instruct import online_dpo_vllm_thread as host
from prm_gym.hosts.open_instruct import generators, sampling_exchange as exchange
note = open(os.environ["NOTE"], "a")
def write(**fact):
    print(json.dumps(fact), file=note, flush=True)
%s
runpy.run_module("prm_gym.hosts.open_instruct", run_name="__main__", alter_sys=True)
"""

# What is sampled, what Q scores, and what the policy is trained on.
SPY = """
generate, forward = generators.TransformersGenerator.generate, host.forward
get_reward = host.get_reward
def sampled(self, prompts, seed):
    responses = generate(self, prompts, seed)
    write(prompts=prompts, responses=responses)
    return responses
def trained(model, ids, pad):
    if __import__("torch").is_grad_enabled():
        write(trained=[[i for i in row if i != pad] for row in ids.tolist()])
    return forward(model, ids, pad)
def scored(model, ids, pad, *rest):
    write(scored=[[i for i in row if i != pad] for row in ids.tolist()])
    return get_reward(model, ids, pad, *rest)
generators.TransformersGenerator.generate, host.forward, host.get_reward = sampled, trained, scored
"""


@pytest.fixture
def note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[dict[str, Any]]]:
    monkeypatch.setenv("NOTE", str(tmp_path / "note.jsonl"))
    return lambda: [json.loads(line) for line in (tmp_path / "note.jsonl").read_text().splitlines()]


def test_the_policy_improves_on_q(launch: Launch, recipe: Recipe, pi_0: Path) -> None:
    run = launch("online_dpo", recipe(total_episodes=320))
    assert run.status == 0, run.log[-3000:]
    before, after = share_of_takes(pi_0), share_of_takes(run.out)
    assert after > before + 0.15, (before, after)
    first = run.metrics[0]
    assert first["objective/kl"] == pytest.approx(0.0, abs=1e-4)  # the reference is the policy it starts from
    assert 0.0 < first["objective/pairs"] <= 1.0
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in run.out.iterdir()}
    tokenizers = [transformers.AutoTokenizer.from_pretrained(folder) for folder in (pi_0, run.out)]
    assert tokenizers[0].get_vocab() == tokenizers[1].get_vocab()  # without the pad token that the host works with


def test_it_trains_on_what_was_sampled_after_the_plain_prompt(
    launch: Launch, recipe: Recipe, pi_0: Path, note: Callable[[], list[dict[str, Any]]]
) -> None:
    """Every sequence that Q scores and the policy is trained on is a plain prompt and a response, id for id as it was
    sampled, but for the end of the turn, which Q does not read. What the responses were sampled from is the exploration
    prompt, as `exploration_probability: 1` says.
    """
    run = launch("online_dpo", recipe(exploration_probability=1.0, num_evals=1), program=PROGRAM % SPY)
    assert run.status == 0, run.log[-3000:]
    facts = note()
    tokenizer = transformers.AutoTokenizer.from_pretrained(pi_0)
    steered = " Your task is to explore."
    wanted, read_by_q = set(), set()
    for fact in facts:
        for prompt, response in zip(fact.get("prompts", []), fact.get("responses", []), strict=True):
            text = tokenizer.decode(prompt)
            if steered in text:  # the evaluation's prompts are plain
                plain = tokenizer.encode(text.replace(steered, ""), add_special_tokens=False)
                wanted.add((*plain, *response, *[0] * (12 - len(response))))
                read_by_q.add((*plain, *(index for index in response if index != tokenizer.eos_token_id)))
    trained = [tuple(row) for fact in facts for row in fact.get("trained", [])]
    assert len(trained) == 2 * 64  # two inner epochs over all responses
    assert set(trained) <= wanted
    scored = [tuple(row) for fact in facts for row in fact.get("scored", [])]
    assert len(scored) == 64
    assert set(scored) <= read_by_q


def test_weights_reach_the_generator_after_every_update(
    launch: Launch, recipe: Recipe, note: Callable[[], list[dict[str, Any]]]
) -> None:
    spy = """
digest = lambda model: float(sum(p.detach().double().abs().sum() for p in model.parameters()))
load, send = generators.TransformersGenerator.load, exchange.Exchange.send
def loaded(self, model):
    load(self, model)
    write(loaded=digest(self.model))
def sent(self, accelerator, model, *rest):
    if model is not None:
        write(policy=digest(model))
    send(self, accelerator, model, *rest)
generators.TransformersGenerator.load, exchange.Exchange.send = loaded, sent
"""
    run = launch("online_dpo", recipe(async_mode=False, total_episodes=80), program=PROGRAM % spy)
    assert run.status == 0, run.log[-3000:]
    facts = note()
    policies = [fact["policy"] for fact in facts if "policy" in fact]
    assert len(policies) == len(set(policies)) == 4  # before each of steps 2 to 5, another policy each time
    assert [fact["loaded"] for fact in facts if "loaded" in fact] == policies


def test_a_raised_error_ends_the_process(launch: Launch, recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """The generation thread is waiting for prompts then, and would keep the process alive."""
    monkeypatch.setenv("NOTE", os.devnull)
    run = launch("online_dpo", recipe(), program=PROGRAM % "host.get_reward = lambda *_: 1 / 0", limit=300)
    assert run.status == 1
    assert "ZeroDivisionError" in run.log


@pytest.mark.parametrize("async_mode", [True, False])
def test_a_crashed_run_goes_on_from_its_checkpoint(
    launch: Launch, recipe: Recipe, tmp_path: Path, note: Callable[[], list[dict[str, Any]]], async_mode: bool
) -> None:
    crash = """
send = exchange.Exchange.send
def sent(self, *rest):
    send(self, *rest)
    if self._step == 6:
        raise RuntimeError("power cut")
exchange.Exchange.send = sent
"""
    settings = recipe(output_dir=str(tmp_path / "pi_1"), total_episodes=96, checkpoint_every=2, num_evals=1)
    settings["async_mode"] = async_mode
    crashed = launch("online_dpo", settings, program=PROGRAM % crash)
    assert crashed.status == 1
    assert [path.name for path in (tmp_path / "pi_1" / "resume").iterdir()] == ["step_4"]
    resumed = launch("online_dpo", settings, program=PROGRAM % SPY)
    assert resumed.status == 0, resumed.log[-3000:]
    # Step 4 was trained before the crash too, but its line is written with the next one.
    assert [line["training_step"] for line in resumed.metrics] == [1, 2, 3, 4, 5, 6]
    assert (tmp_path / "pi_1" / "config.json").exists()
    assert not (tmp_path / "pi_1" / "resume").exists()
    # What it trains on was sampled after the same prompt, in the steps after the crash as in any other.
    facts = note()
    sampled = {
        (*prompt, *response, *[0] * (12 - len(response)))
        for fact in facts
        for prompt, response in zip(fact.get("prompts", []), fact.get("responses", []), strict=True)
    }
    trained = {tuple(row) for fact in facts for row in fact.get("trained", [])}
    assert len(trained) > 16
    assert trained <= sampled

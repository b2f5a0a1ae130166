"""Muon beside AdamW: the assignment of parameters, one step, and resuming both from a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tomllib

pytest.importorskip("trl", reason="needs the extra 'trl'")
import torch
from packaging.requirements import Requirement

from prm_gym.hosts.trl.muon import MuonWithAdamW, with_muon

RATES: dict[str, Any] = {"lr": 1e-2, "muon_lr": 2e-2, "betas": (0.9, 0.95)}


@pytest.fixture
def model() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=11, tie_word_embeddings=False, **sizes))


def train(model: Any, optimizer: Any, steps: int, first: int = 0) -> None:
    for step in range(first, first + steps):
        torch.manual_seed(step)
        ids = torch.randint(0, 11, (2, 8))
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def test_every_parameter_is_in_one_group(model: Any) -> None:
    groups = MuonWithAdamW(model, **RATES).param_groups
    names = {id(p): name for name, p in model.named_parameters()}
    muon, adamw = ([names[id(p)] for p in group["params"]] for group in groups)
    assert sorted(muon + adamw) == sorted(names.values())
    assert all(".self_attn." in name or ".mlp." in name for name in muon)
    assert {"model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"} <= set(adamw)
    assert [group["lr"] for group in groups] == [2e-2, 1e-2]


def test_the_score_of_a_prm_is_an_output(model: Any) -> None:
    from transformers import LlamaForSequenceClassification

    model.config.num_labels, model.config.pad_token_id = 1, 0
    prm = LlamaForSequenceClassification(model.config)
    muon, adamw = ({id(p) for p in group["params"]} for group in MuonWithAdamW(prm, **RATES).param_groups)
    assert id(prm.score.weight) in adamw
    assert muon


def test_a_step_is_torchs_own_of_each_part(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)  # torch's Muon in the dtype of the weights
    optimizer = MuonWithAdamW(model, **RATES)
    copied = [[torch.nn.Parameter(p.detach().clone()) for p in group["params"]] for group in optimizer.param_groups]
    muon, adamw = copied
    oracles = [
        torch.optim.Muon(muon, lr=2e-2, weight_decay=0.0),
        torch.optim.AdamW(adamw, lr=1e-2, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    for step in range(3):
        torch.manual_seed(step)
        ids = torch.randint(0, 11, (2, 8))
        model(input_ids=ids, labels=ids).loss.backward()
        for copies, group in zip(copied, optimizer.param_groups, strict=True):
            for copy, p in zip(copies, group["params"], strict=True):
                copy.grad = p.grad.clone()
        optimizer.step()
        optimizer.zero_grad()
        for oracle in oracles:
            oracle.step()
    for copies, group in zip(copied, optimizer.param_groups, strict=True):
        for copy, p in zip(copies, group["params"], strict=True):
            torch.testing.assert_close(p.detach(), copy.detach())


def test_training_goes_on_from_its_state_as_if_never_stopped(model: Any) -> None:
    from copy import deepcopy

    whole = deepcopy(model)
    train(whole, MuonWithAdamW(whole, **RATES), 4)
    first = MuonWithAdamW(model, **RATES)
    train(model, first, 2)
    second = MuonWithAdamW(model, **RATES)
    second.load_state_dict(deepcopy(first.state_dict()))
    train(model, second, 2, first=2)
    for p, q in zip(model.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(p, q)


def test_a_schedule_scales_both_rates(model: Any) -> None:
    optimizer = MuonWithAdamW(model, **RATES)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    optimizer.step()
    schedule.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([1e-2, 5e-3])


def test_without_a_rate_a_trainer_stays_as_it_is() -> None:
    class Trainer:
        pass

    assert with_muon(Trainer, None) is Trainer


def test_the_extra_installs_a_torch_that_has_muon() -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    needs = [Requirement(need) for need in project["optional-dependencies"]["trl"]]
    assert not any(need.specifier.contains("2.8.0") for need in needs if need.name == "torch")
    assert "torch" in {need.name for need in needs}

"""Policy gradient in the host's loop over pairs: its gradient against REINFORCE written out, and a run of the host."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from oi_world import Run, sft_recipe, share_of_takes

from prm_gym.hosts.open_instruct.policy_gradient import both_ended, pair_losses

torch = pytest.importorskip("torch")
Launch = Callable[..., Run]
Labels = Callable[..., Path]
BETA = 0.3


def test_the_gradient_is_that_of_reinforce_with_the_other_response_as_baseline() -> None:
    """E[grad log pi (r - baseline)] over the responses of each prompt, with the KL penalty in the reward."""
    torch.manual_seed(0)
    pairs = 5
    theta = torch.randn(pairs, 2, requires_grad=True)  # log pi of the responses, up to a constant of the prompt
    log_pi, log_ref, q = 2.0 * theta, torch.randn(pairs, 2), torch.randn(pairs, 2)
    wanted = torch.zeros(pairs, 2)
    for i in range(pairs):
        reward = [float(q[i, k] - BETA * (log_pi[i, k] - log_ref[i, k])) for k in (0, 1)]
        for k in (0, 1):
            wanted[i, k] = -2.0 * (reward[k] - reward[1 - k]) / 2  # d log_pi / d theta = 2, a mean over two responses
    difference = (log_pi[:, 0] - log_pi[:, 1]) - (log_ref[:, 0] - log_ref[:, 1])
    pair_losses(SimpleNamespace(beta=BETA), difference, q[:, 0] - q[:, 1]).sum().backward()
    torch.testing.assert_close(theta.grad, wanted)


def test_a_prompt_with_a_response_cut_off_is_left_out_and_ties_are_not() -> None:
    ended = torch.tensor([True, True, False, False]), torch.tensor([True, False, True, False])
    first, second, weight = both_ended(torch.zeros(4), torch.zeros(4), *ended)
    assert first.tolist() == [0, 1, 2, 3]
    assert second.tolist() == [4, 5, 6, 7]
    assert weight.tolist() == [1.0, 0.0, 0.0, 0.0]


def test_it_improves_the_policy_on_the_host(launch: Launch, untrained: Path, labels: Labels) -> None:
    """The share of the actions that Q prefers grows, as by online DPO in test_oi_stage3."""
    pi_0 = launch("sft", sft_recipe(untrained, labels("sft", 128)))
    assert pi_0.status == 0, pi_0.log[-3000:]
    stage2 = {
        "model_name_or_path": str(pi_0.out), "dataset_mixer_list": [str(labels("monte_carlo", 64)), "1.0"],
        "max_token_length": 200, "learning_rate": 3e-3, "per_device_train_batch_size": 16,
        "gradient_accumulation_steps": 1, "num_train_epochs": 6,
    }  # fmt: skip
    q_0 = launch("reward_modeling", stage2)
    assert q_0.status == 0, q_0.log[-3000:]
    prompts = str(labels("prompts", 64))
    stage3 = {
        "model_name_or_path": str(pi_0.out), "reward_model_path": str(q_0.out), "torch_dtype": "float32",
        "dataset_mixer": {prompts: 1.0}, "dataset_train_splits": ["train"],
        "dataset_eval_mixer": {prompts: 1.0}, "dataset_eval_splits": ["test"],
        "max_prompt_token_length": 150, "response_length": 12, "temperature": 1.0, "stop_token": "eos",
        "learning_rate": 1e-3, "beta": 0.03, "per_device_train_batch_size": 16, "gradient_accumulation_steps": 1,
        "num_epochs": 1, "num_evals": 2, "total_episodes": 480, "async_mode": False,
    }  # fmt: skip
    refused = launch("policy_gradient", {**stage3, "num_epochs": 2})
    assert "num_epochs: 2, and the gradient is right for the policy that sampled; set it to 1" in refused.log
    run = launch("policy_gradient", stage3)
    assert run.status == 0, run.log[-3000:]
    before, after = share_of_takes(pi_0.out), share_of_takes(run.out)
    assert after > before + 0.15, (before, after)

"""The losses of Stage 2 against their formulas, and the metrics against brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest

from prm_gym.hosts import losses
from prm_gym.hosts.open_instruct import held_out_loss

torch = pytest.importorskip("torch")

Q = [-2.0, -0.3, 0.0, 0.7, 3.1]
TARGET = [0.0, 0.25, 0.5, 0.95, 1.0]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_soft_bce_is_equation_2() -> None:
    wanted = -sum(
        t * math.log(sigmoid(q)) + (1 - t) * math.log(1 - sigmoid(q)) for q, t in zip(Q, TARGET, strict=True)
    ) / len(Q)
    assert losses.soft_bce(torch.tensor(Q), torch.tensor(TARGET))[0].item() == pytest.approx(wanted, abs=1e-6)


def test_soft_bce_is_what_the_embedded_host_computes() -> None:
    """TRL's Stage 2 leaves the loss to transformers: multi_label_classification with float labels [batch, 1]."""
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_labels=1, pad_token_id=0, problem_type="multi_label_classification",
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.LlamaForSequenceClassification(config)
    ids = torch.randint(1, 50, (4, 9))
    ids[1, 5:] = ids[3, 7:] = 0
    target = torch.tensor([0.1, 0.9, 0.5, 1.0])
    theirs = model(input_ids=ids, attention_mask=ids != 0, labels=target[:, None]).loss
    ours = losses.make_compute_loss("soft_bce", 0.95)(model, {"chosen_input_ids": ids, "target": target}, 0)[0]
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-6)


def test_padding_does_not_change_a_score() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, num_labels=1
    )
    model = transformers.LlamaForSequenceClassification(config)
    ids = torch.randint(1, 50, (1, 6))
    padded = torch.cat((ids, torch.zeros(1, 5, dtype=ids.dtype)), 1)
    assert losses.score(model, padded, 0).item() == pytest.approx(losses.score(model, ids, 0).item(), abs=1e-6)


def test_bradley_terry_is_the_log_of_the_winning_probability() -> None:
    chosen, rejected = Q, TARGET
    wanted = -sum(
        math.log(math.exp(c) / (math.exp(c) + math.exp(r))) for c, r in zip(chosen, rejected, strict=True)
    ) / len(Q)
    loss, _, _ = losses.bradley_terry(torch.tensor(chosen), torch.tensor(rejected))
    assert loss.item() == pytest.approx(wanted, abs=1e-6)


def test_inverse_is_algorithm_2_line_8() -> None:
    following, expert, gamma = [0.5, -1.0, 2.0, 0.1, -0.4], [1.0, 0.0, 1.0, 0.0, 1.0], 0.9
    wanted = 0.0
    for q, q_next, e in zip(Q, following, expert, strict=True):
        p = sigmoid(q - gamma * q_next)
        wanted -= math.log(p) if e else math.log(1 - p)
    found = losses.inverse(torch.tensor(Q), torch.tensor(following), torch.zeros(5), torch.tensor(expert), gamma)[0]
    assert found.item() == pytest.approx(wanted / 5, abs=1e-6)


def test_nothing_follows_a_terminal_transition() -> None:
    q, expert, terminated = torch.tensor(Q), torch.ones(5), torch.ones(5)
    low, high = (losses.inverse(q, torch.full((5,), x), terminated, expert, 0.95)[0].item() for x in (-50.0, 50.0))
    assert low == high


def test_inverse_learns_through_the_next_value_too() -> None:
    q, q_next = torch.tensor(Q, requires_grad=True), torch.tensor(TARGET, requires_grad=True)
    losses.inverse(q, q_next, torch.zeros(5), torch.ones(5), 0.95)[0].backward()
    assert torch.allclose(q_next.grad, -0.95 * q.grad)


def test_auc_of_one_class_is_not_a_number() -> None:
    found = held_out_loss.metrics("inverse", np.array([0.1, 0.2]), np.array([1.0, 1.0]))
    assert math.isnan(found["eval/rm/auc"])


@pytest.mark.parametrize("loss", ["soft_bce", "bradley_terry", "inverse"])
def test_the_loss_evaluated_is_the_loss_trained(loss: str) -> None:
    first, second = torch.tensor(Q), torch.tensor(TARGET)
    if loss == "soft_bce":
        value, a, b = losses.soft_bce(first, second)
    elif loss == "bradley_terry":
        value, a, b = losses.bradley_terry(first, second)
    else:
        value, a, b = losses.inverse(first, second, torch.zeros(5), torch.tensor([1.0, 0, 1, 0, 1]), 0.95)
    found = held_out_loss.metrics(loss, a.double().numpy(), b.double().numpy())
    assert found["eval/rm/loss"] == pytest.approx(value.item(), abs=1e-6)


def test_separation_is_the_gap_of_mean_advantages() -> None:
    advantage, expert = np.array([2.0, 1.0, -1.0]), np.array([1.0, 1.0, 0.0])
    found = held_out_loss.metrics("inverse", 1 / (1 + np.exp(-advantage)), expert)
    assert found["eval/rm/separation"] == pytest.approx(2.5)
    assert found["eval/rm/auc"] == 1.0

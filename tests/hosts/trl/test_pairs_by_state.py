"""Pairs grouped by state: scores, loss and gradients are those of every pair on its own."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("trl", reason="needs the extra 'trl'")
import datasets
import torch
from prefix_models import FAMILIES, PAD, Padding, Wrapped, assert_same, model_of
from torch.nn.functional import logsigmoid

from prm_gym.hosts.trl import pairs_by_state

PAIRS = [  # (prompt, chosen, rejected); prompts longer and shorter than the window
    ([7, 8, 9, 10, 11, 12, 13], [14], [15, 16, 17]),
    ([7, 8], [21, 22], [23]),
    ([7, 8, 9, 10, 11, 12, 13], [15, 16, 17], [18, 19]),
    ([7, 8, 9, 10, 11, 12, 13], [14], [18, 19]),
    ([29, 30], [31, 32, 33, 34, 35, 36], [37]),
    ([7, 8], [23], []),  # a response that ends at once is scored at the end of the prompt
]


def one_by_one(model: Any) -> torch.Tensor:
    def q(ids: list[int]) -> torch.Tensor:
        return model(input_ids=torch.tensor([ids]), use_cache=False).logits.squeeze()

    return -torch.stack([logsigmoid(q(p + good) - q(p + bad)) for p, good, bad in PAIRS]).mean()


def states() -> datasets.Dataset:
    return pairs_by_state.by_state(datasets.Dataset.from_list([pairs_by_state.of_ids(*pair) for pair in PAIRS]))


def test_a_state_has_each_response_once_and_all_of_its_pairs() -> None:
    grouped = list(states())
    assert len(grouped) == 3
    assert sorted(map(tuple, grouped[0]["responses"])) == [(13, 14), (13, 15, 16, 17), (13, 18, 19)]
    found = [
        ([*row["prompt"], row["responses"][good][0]], row["responses"][good][1:], row["responses"][bad][1:])
        for row in grouped
        for good, bad in zip(row["chosen"], row["rejected"], strict=True)
    ]
    assert sorted(found) == sorted(PAIRS)
    assert [row["length"] for row in grouped] == [10, 4, 8]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_loss_and_gradients_are_those_of_the_pairs_one_by_one(family: str, checkpointing: bool) -> None:
    model = model_of(family)
    batch = pairs_by_state.collate(list(states()), Padding())
    assert_same(model, one_by_one(model), lambda: pairs_by_state.loss(model, batch, PAD), checkpointing)


def test_a_wrapped_model_is_called_as_the_trainer_wrapped_it() -> None:
    wrapped = Wrapped(model_of("Llama"))
    pairs_by_state.loss(wrapped, pairs_by_state.collate(list(states()), Padding()), PAD)
    assert wrapped.calls == 2

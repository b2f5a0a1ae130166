"""Pairs grouped by state: scores, loss and gradients are those of every pair on its own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("trl", reason="needs the extra 'trl'")
import datasets
import torch
from torch.nn.functional import logsigmoid, pad
from transformers import (
    AutoModelForSequenceClassification,
    Gemma3TextConfig,
    LlamaConfig,
    MistralConfig,
    Olmo2Config,
    Qwen3Config,
)

from prm_gym.hosts.trl import pairs_by_state

PAD, WINDOW = 0, 4
SIZES = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
MIXED = ["sliding_attention", "full_attention"]
FAMILIES = {
    "Gemma 3": (Gemma3TextConfig, {"sliding_window": WINDOW, "layer_types": MIXED, "head_dim": 8}),
    "Llama": (LlamaConfig, {}),
    "Mistral": (MistralConfig, {"sliding_window": WINDOW}),
    "OLMo 2": (Olmo2Config, {}),
    "Qwen 3": (Qwen3Config, {"head_dim": 8}),
}
PAIRS = [  # (prompt, chosen, rejected); prompts longer and shorter than the window
    ([7, 8, 9, 10, 11, 12, 13], [14], [15, 16, 17]),
    ([7, 8], [21, 22], [23]),
    ([7, 8, 9, 10, 11, 12, 13], [15, 16, 17], [18, 19]),
    ([7, 8, 9, 10, 11, 12, 13], [14], [18, 19]),
    ([29, 30], [31, 32, 33, 34, 35, 36], [37]),
    ([7, 8], [23], []),  # a response that ends at once is scored at the end of the prompt
]


class Padding:
    """The one method of a tokenizer that `collate` calls."""

    def pad(
        self, rows: dict[str, list[list[int]]], *, padding_side: str, return_tensors: str
    ) -> dict[str, torch.Tensor]:
        width = max(map(len, rows["input_ids"]))

        def to_width(values: list[int]) -> torch.Tensor:
            missing = width - len(values)
            return pad(torch.tensor(values), (missing, 0) if padding_side == "left" else (0, missing), value=PAD)

        ids = torch.stack([to_width(row) for row in rows["input_ids"]])
        return {"input_ids": ids, "attention_mask": (ids != PAD).long()}


def model_of(family: str) -> Any:
    torch.manual_seed(0)
    config, options = FAMILIES[family]
    config = config(**SIZES, num_key_value_heads=1, pad_token_id=PAD, num_labels=1, **options)
    model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    for weight in model.parameters():  # far from the initial near-zero outputs
        torch.nn.init.normal_(weight, std=0.3)
    return model


def one_by_one(model: Any) -> torch.Tensor:
    def q(ids: list[int]) -> torch.Tensor:
        return model(input_ids=torch.tensor([ids]), use_cache=False).logits.squeeze()

    return -torch.stack([logsigmoid(q(p + good) - q(p + bad)) for p, good, bad in PAIRS]).mean()


def gradients(model: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


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
    wanted = one_by_one(model)
    wanted_gradients = gradients(model, wanted)
    if checkpointing:
        model.train()
        model.activation_checkpointing_enable({"use_reentrant": False})
    found = pairs_by_state.loss(model, pairs_by_state.collate(list(states()), Padding()), PAD)
    assert found.item() == pytest.approx(wanted.item(), abs=1e-5)
    found_gradients = gradients(model, found)
    assert found_gradients.keys() == wanted_gradients.keys()
    for name, gradient in wanted_gradients.items():
        torch.testing.assert_close(found_gradients[name], gradient, atol=1e-5, rtol=1e-4, msg=name)


def test_a_wrapped_model_is_called_as_the_trainer_wrapped_it() -> None:
    """DistributedDataParallel averages gradients in its own forward."""
    model, calls = model_of("Llama"), []

    class Wrapped:
        module = model

        def __call__(self, **arguments: Any) -> SimpleNamespace:
            calls.append(set(arguments))
            return model(**arguments)

    pairs_by_state.loss(Wrapped(), pairs_by_state.collate(list(states()), Padding()), PAD)
    assert len(calls) == 2

"""Small models of several families, far from their initial outputs, and a tokenizer that pads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.functional import pad
from transformers import (
    AutoModelForSequenceClassification,
    Gemma3TextConfig,
    LlamaConfig,
    MistralConfig,
    Olmo2Config,
    Qwen3Config,
)

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


def gradients(model: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def assert_same(model: Any, wanted: torch.Tensor, loss: Callable[[], torch.Tensor], checkpointing: bool) -> None:
    """That `loss()` and its gradients are those of `wanted`, perhaps with gradient checkpointing."""
    gradients_wanted = gradients(model, wanted)
    if checkpointing:
        model.train()
        model.activation_checkpointing_enable({"use_reentrant": False})
    found = loss()
    assert found.item() == pytest.approx(wanted.item(), abs=1e-5)
    torch.testing.assert_close(gradients(model, found), gradients_wanted, atol=1e-5, rtol=1e-4)


class Wrapped:
    """As DistributedDataParallel wraps a model: it averages gradients in its own forward."""

    def __init__(self, module: Any) -> None:
        self.module, self.calls = module, 0

    def __call__(self, **arguments: Any) -> Any:
        self.calls += 1
        return self.module(**arguments)

"""The shapes of the keys and values that each layer caches, found by running the model on one token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from prm_gym.errors import UserError, first_line

SERVE = "serve it (vllm serve MODEL) and use the server policy (--server)"


class KVShape(NamedTuple):
    """The key-value heads of one layer, and the size of each key and value.

    All are 0 for a layer that caches nothing because it reads the keys and values of an earlier layer.
    """

    heads: int
    key_size: int
    value_size: int


def cached_shapes(model: PreTrainedModel, feed: Callable[[Cache], object]) -> list[KVShape]:
    """The shape of each layer's cache, up to the last layer that has one. `feed(cache)` runs `model` on one token.

    Raises `UserError` if that fails, or if a layer caches no keys and values: it then keeps another kind of state.
    """
    probe = _Probe()
    try:
        feed(probe)
    except Exception as error:  # models raise different errors for arguments or a cache that they do not support
        problem = f"cannot run in process on cached keys and values ({type(error).__name__}: {first_line(error)})"
        raise UserError(model.name_or_path, problem, SERVE) from error
    layers = DynamicCache(config=model.config.get_text_config()).layers
    expected = sum(isinstance(layer, DynamicLayer) for layer in layers)
    if len(probe.shapes) < expected:
        problem = (
            f"caches the keys and values of {len(probe.shapes)} of its {expected} layers, so it cannot run in process"
        )
        raise UserError(model.name_or_path, problem, SERVE)
    return [probe.shapes.get(layer, KVShape(0, 0, 0)) for layer in range(max(probe.shapes) + 1)]


class _Probe(Cache):  # type: ignore[misc]
    """A cache for the first token of one sequence that records shapes only."""

    def __init__(self) -> None:
        super().__init__(layers=[])
        self.shapes: dict[int, KVShape] = {}

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self.shapes[layer_idx] = KVShape(key_states.shape[1], key_states.shape[3], value_states.shape[3])
        return key_states, value_states

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0

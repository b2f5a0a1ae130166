"""The search for the longest cached prefix against a loop over all cached sequences."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prm_gym.inference.kv_cache import KVCache
from prm_gym.inference.kv_shapes import KVShape

TEXT = st.lists(st.integers(0, 1), min_size=1, max_size=90)


def shared(one, other):
    differing = [a == b for a, b in zip(one, other, strict=False)]
    return differing.index(False) if False in differing else len(differing)


@settings(max_examples=150, deadline=None)
@given(st.lists(TEXT, max_size=6), TEXT, st.integers(0, 80))
def test_longest_prefix_is_the_longest(texts, text, common):
    shapes = [KVShape(heads=1, key_size=2, value_size=2)]
    slots = KVCache(
        shapes, max_slots=8, max_length=200, memory_bytes=1 << 20, device=torch.device("cpu"), dtype=torch.float32
    )
    slots.reserve(180)
    texts = [text[:common] + other for other in texts]
    for slot, cached in enumerate(texts):
        slots.commit(slot, np.array(cached, np.int32))
    slot, length = slots._longest_prefix(np.array(text, np.int32), np.zeros(len(slots._length), bool))
    assert length == max([shared(text, cached) for cached in texts], default=0)
    assert length == 0 or shared(text, texts[slot]) == length

"""The cache: its search for the longest prefix against a loop, exchanges of slots against a list, resident memory."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prm_gym.inference.kv_cache import KVCache
from prm_gym.inference.kv_shapes import KVShape

TEXT = st.lists(st.integers(0, 1), min_size=1, max_size=90)


def shared(one, other):
    differing = [a == b for a, b in zip(one, other, strict=False)]
    return differing.index(False) if False in differing else len(differing)


def cache(heads=1, size=2, dtype=torch.float32, **limits):
    limits = {"max_slots": 8, "max_length": 200, "memory_bytes": 1 << 20, **limits}
    return KVCache([KVShape(heads, size, size)], **limits, device=torch.device("cpu"), dtype=dtype)


@settings(max_examples=150, deadline=None)
@given(st.lists(TEXT, max_size=6), TEXT, st.integers(0, 80))
def test_longest_prefix_is_the_longest(texts, text, common):
    slots = cache()
    slots.reserve(180)
    texts = [text[:common] + other for other in texts]
    for slot, cached in enumerate(texts):
        slots.commit(slot, np.array(cached, np.int32))
    slot, length = slots._longest_prefix(np.array(text, np.int32), np.zeros(len(slots._length), bool))
    assert length == max([shared(text, cached) for cached in texts], default=0)
    assert length == 0 or shared(text, texts[slot]) == length


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sequences_move_with_their_slots(dtype):
    slots = cache(dtype=dtype)
    slots.reserve(100)
    lengths = [5, 0, 100, 7, 0, 1, 30, 0]
    for slot, length in enumerate(lengths):
        slots.commit(slot, np.full(length, slot, np.int32))
    for store in slots._stores:
        store.copy_(torch.randn(store.shape))
    before = [[store[slot, :, :length].clone() for store in slots._stores] for slot, length in enumerate(lengths)]
    slots.swap(np.array([0, 1, 2]), np.array([6, 3, 7]))
    for slot, origin in enumerate([6, 3, 7, 1, 4, 5, 0, 2]):
        assert slots._length[slot] == lengths[origin]
        for store, values in zip(slots._stores, before[origin], strict=True):
            assert torch.equal(store[slot, :, : lengths[origin]], values)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_short_sequences_take_little_of_the_reserved_memory():
    slots = cache(heads=4, size=32, max_slots=512, max_length=600, memory_bytes=1 << 28)
    before = _resident()
    slots.reserve(500)
    reserved = sum(store.nbytes for store in slots._stores)
    assert reserved > 200 << 20
    slots.copy_to(1, np.zeros(slots._stores[0].shape[0] - 1, np.int64), 10)
    assert _resident() - before < reserved / 4


def test_a_system_without_huge_pages_needs_no_advice(monkeypatch):
    class Pages(mmap.mmap):
        def madvise(self, *advice):
            raise OSError("invalid argument")

    monkeypatch.setattr(mmap, "mmap", Pages)
    slots = cache()
    assert slots.reserve(100) == 8
    assert not slots._stores[0].any()


def _resident():
    """The resident memory of this process, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

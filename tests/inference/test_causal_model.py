"""Generation with the KV cache against transformers' own `generate` and uncached forward passes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_models import CONTEXT, loaded, stock_greedy, stock_logits, stock_logprobs

from prm_gym.inference.causal_model import CausalModel

NEW = 8


def slot_model(max_rows=8, memory_bytes=1 << 26):
    model = loaded()
    return CausalModel(
        model,
        lambda **inputs: model(**inputs, logits_to_keep=1).logits[:, -1],
        max_rows=max_rows,
        max_length=CONTEXT,
        memory_bytes=memory_bytes,
    )


def ends():
    return frozenset(loaded().generation_config.eos_token_id)


def greedy(model, prompts):
    sampled = model.generate(prompts, np.zeros((len(prompts), NEW), np.float32), temperature=0, stop=ends())
    return [each.ids for each in sampled]


def text(rng, low, high):
    return rng.integers(6, 200, rng.integers(low, high)).astype(np.int32)


def fed(monkeypatch, model):
    """A list to which every forward pass adds [rows, tokens of each]."""
    shapes, forward = [], model._forward
    monkeypatch.setattr(
        model, "_forward", lambda **inputs: shapes.append(inputs["input_ids"].shape) or forward(**inputs)
    )
    return shapes


@pytest.mark.parametrize(
    ("episodes", "memory"), [(6, 1 << 26), (30, 1)], ids=["every episode has a slot", "slots are evicted"]
)
def test_greedy_equals_generate_over_turns_of_ragged_batches(episodes, memory):
    rng = np.random.default_rng(0)
    model = slot_model(8, memory)
    sequences = [text(rng, 1, 90) for _ in range(episodes)]
    for _ in range(6):
        chosen = rng.permutation(episodes)[: rng.integers(1, 8)]
        answers = greedy(model, [sequences[i] for i in chosen])
        for i, answer in zip(chosen, answers, strict=True):
            assert answer == stock_greedy(sequences[i], NEW)
            heard = np.array(answer[: rng.integers(0, len(answer) + 1)], np.int32)  # history may drop a part
            sequences[i] = np.concatenate([sequences[i], heard, text(rng, 1, 30)])


def test_outputs_equal_the_uncached_forward_pass():
    rng = np.random.default_rng(1)
    model = slot_model()
    stem = text(rng, 60, 61)
    for _ in range(4):
        prompts = [np.concatenate([stem[: rng.integers(0, 60)], text(rng, 1, 40)]) for _ in range(8)]
        expected = torch.stack([stock_logits(prompt) for prompt in prompts])
        torch.testing.assert_close(model.outputs(prompts), expected, atol=1e-4, rtol=1e-4)


def test_one_long_newcomer_among_short_turns():
    rng = np.random.default_rng(2)
    model = slot_model()
    old = [text(rng, 20, 40) for _ in range(7)]
    greedy(model, old)
    prompts = [np.concatenate([p, text(rng, 5, 9)]) for p in old] + [text(rng, 400, 401)]
    assert greedy(model, prompts) == [stock_greedy(prompt, NEW) for prompt in prompts]


def test_equal_prompts_in_a_batch_are_computed_once(monkeypatch):
    rng = np.random.default_rng(3)
    model = slot_model()
    one, other = text(rng, 30, 40), text(rng, 30, 40)
    shapes = fed(monkeypatch, model)
    answers = greedy(model, [one, other, one, one])
    assert [a == answers[0] for a in answers] == [True, False, True, True]
    assert answers[:2] == [stock_greedy(one, NEW), stock_greedy(other, NEW)]
    assert sum(rows for rows, tokens in shapes if tokens > 1) <= 3  # two leaders, one of them in two parts


def test_the_next_turn_costs_its_new_tokens(monkeypatch):
    rng = np.random.default_rng(4)
    model = slot_model()
    prompts = [text(rng, 100, 120) for _ in range(5)]
    answers = greedy(model, prompts)
    longer = [
        np.concatenate([p, np.array(a, np.int32), text(rng, 9, 10)]) for p, a in zip(prompts, answers, strict=True)
    ]
    shapes = fed(monkeypatch, model)
    model.outputs(longer)
    assert shapes == [(5, 10)]  # the last token of an answer was sampled, not yet read


def test_a_branch_leaves_the_episode_it_came_from(monkeypatch):
    rng = np.random.default_rng(5)
    model = slot_model()
    trunk = text(rng, 100, 101)
    model.outputs([trunk])
    branches = [np.concatenate([trunk[:40], text(rng, 5, 6)]) for _ in range(2)]
    shapes = fed(monkeypatch, model)
    model.outputs(branches)
    model.outputs([np.append(trunk, trunk[:3])])
    assert shapes == [(2, 5), (1, 3)]


def test_siblings_compute_what_they_share_once(monkeypatch):
    """Branches of one state that come in one batch, beside an episode that shares less than half with them."""
    rng = np.random.default_rng(10)
    model = slot_model()
    state, stranger = text(rng, 100, 101), text(rng, 30, 31)
    siblings = [np.concatenate([state, text(rng, 10, 11)]) for _ in range(3)]
    cousin = np.concatenate([state[:80], text(rng, 10, 11)])
    far = np.concatenate([state[:20], text(rng, 30, 31)])
    prompts = [siblings[0], stranger, cousin, siblings[1], far, siblings[2]]
    shapes = fed(monkeypatch, model)
    assert greedy(model, prompts) == [stock_greedy(prompt, NEW) for prompt in prompts]
    prefilled = sum(rows * tokens for rows, tokens in shapes if tokens > 1)
    different = len({tuple(prompt[: i + 1]) for prompt in prompts for i in range(len(prompt))})
    assert prefilled < 1.6 * different < 0.7 * sum(map(len, prompts))


def test_growing_columns_keep_what_was_cached(monkeypatch):
    rng = np.random.default_rng(6)
    model = slot_model()
    prompt = text(rng, 400, 401)
    model.outputs([prompt])
    shapes = fed(monkeypatch, model)
    longer = np.concatenate([prompt, text(rng, 250, 251)])
    torch.testing.assert_close(model.outputs([longer])[0], stock_logits(longer), atol=1e-4, rtol=1e-4)
    assert shapes == [(1, 250)]


def test_memory_bounds_the_slots_and_splits_batches():
    rng = np.random.default_rng(9)
    model = slot_model(8, memory_bytes=1 << 19)
    prompts = [text(rng, 10, 60) for _ in range(8)]
    assert greedy(model, prompts) == [stock_greedy(prompt, NEW) for prompt in prompts]
    assert len(model._cache._stores[0]) < 8
    assert sum(store.nbytes for store in model._cache._stores) <= 1 << 19


def test_a_failed_batch_leaves_nothing_half_written(monkeypatch):
    rng = np.random.default_rng(7)
    model = slot_model()
    prompts = [text(rng, 30, 50) for _ in range(3)]
    greedy(model, prompts)
    forward = model._forward
    monkeypatch.setattr(model, "_forward", lambda **inputs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        greedy(model, prompts)
    monkeypatch.setattr(model, "_forward", forward)
    assert greedy(model, prompts) == [stock_greedy(prompt, NEW) for prompt in prompts]


def test_samples_follow_the_softmax():
    prompt = np.arange(10, 40, dtype=np.int32)
    model = slot_model(max_rows=500)
    uniforms = (np.random.default_rng(8).permutation(4000) / 4000).astype(np.float32)[:, None]  # every quantile once
    counts = np.zeros(loaded().config.vocab_size)
    for batch in np.split(uniforms, 8):
        for sampled in model.generate([prompt] * 500, batch, temperature=2.0, stop=ends()):
            counts[sampled.ids] += 1
    expected = torch.softmax(stock_logits(prompt) / 2.0, -1).numpy() * 4000
    assert np.abs(counts - expected).max() <= 2  # inversion is exact to the rounding at both ends of an interval


@pytest.mark.parametrize("temperature", [0.0, 0.4, 1.0, 2.5])
def test_log_probabilities_are_those_of_an_uncached_pass_in_float64(temperature):
    """Over turns of ragged batches, whose rows change places and leave early."""
    rng = np.random.default_rng(9)
    model = slot_model()
    prompts = [text(rng, 1, 90) for _ in range(8)]
    lengths = set()
    for _ in range(3):
        uniforms = rng.random((len(prompts), NEW), np.float32)
        for i, sampled in enumerate(model.generate(prompts, uniforms, temperature=temperature, stop=ends())):
            plain, scaled = stock_logprobs(prompts[i], sampled.ids, temperature)
            assert sampled.logprob == pytest.approx(plain, abs=2e-4)
            assert sampled.sampling_logprob == pytest.approx(scaled, abs=2e-4 / (temperature or 1))
            lengths.add(len(sampled.ids))
            prompts[i] = np.concatenate([prompts[i], np.array(sampled.ids, np.int32), text(rng, 1, 30)])
    assert len(lengths) > 2

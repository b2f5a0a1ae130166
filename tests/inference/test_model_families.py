"""The KV cache with small random models of many families, windows shorter than the texts, against transformers alone.

Everything is in float32; logits agree to 1e-4, tokens exactly.
"""

from __future__ import annotations

from functools import lru_cache, partial

import numpy as np
import pytest
import torch
from tiny_models import WIDTHS, WORDS, spread, state
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    Gemma2Config,
    Gemma3TextConfig,
    Gemma4TextConfig,
    GptOssConfig,
    JambaConfig,
    Llama4TextConfig,
    LlamaConfig,
    MambaConfig,
    MinistralConfig,
    MistralConfig,
    Olmo2Config,
    Olmo3Config,
    Qwen2Config,
    Qwen3Config,
    Qwen3NextConfig,
    RwkvConfig,
)

from prm_gym import prompts
from prm_gym.errors import UserError
from prm_gym.hosts.tiny_model import make_tokenizer
from prm_gym.inference.attention_masks import LayerMasks
from prm_gym.inference.causal_model import CausalModel
from prm_gym.prm.in_process import PRMScorer

VOCABULARY, CONTEXT, NEW, WINDOW = 200, 400, 12, 9
FULL, SLIDING = "full_attention", "sliding_attention"
MIXED = [SLIDING, SLIDING, FULL, SLIDING]
ROPE_BY_KIND = {
    FULL: {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 100},
    SLIDING: {"rope_type": "default", "rope_theta": 1e4},
}

FAMILIES = {
    "Gemma 2": partial(Gemma2Config, sliding_window=WINDOW, layer_types=MIXED, head_dim=8, attn_logit_softcapping=2.0),
    "Gemma 3": partial(Gemma3TextConfig, sliding_window=WINDOW, layer_types=MIXED, head_dim=8),  # two rope bases
    "Gemma 4": partial(  # heads of two sizes; the last two layers read the keys and values of the two before
        Gemma4TextConfig,
        sliding_window=WINDOW,
        layer_types=[SLIDING, FULL, SLIDING, FULL],
        num_kv_shared_layers=2,
        head_dim=8,
        global_head_dim=16,
        hidden_size_per_layer_input=4,
        vocab_size_per_layer_input=VOCABULARY,
    ),
    "GPT-OSS": partial(GptOssConfig, sliding_window=WINDOW, layer_types=MIXED, head_dim=8, num_local_experts=4),
    "Llama": partial(LlamaConfig),
    "Ministral": partial(MinistralConfig, sliding_window=WINDOW, layer_types=MIXED, head_dim=8),
    "Mistral": partial(MistralConfig, sliding_window=WINDOW),
    "OLMo 2": partial(Olmo2Config),
    "OLMo 3": partial(Olmo3Config, sliding_window=WINDOW, layer_types=MIXED, rope_parameters=ROPE_BY_KIND),
    "Qwen 2": partial(Qwen2Config, sliding_window=WINDOW, use_sliding_window=True, max_window_layers=2),
    "Qwen 3": partial(Qwen3Config, sliding_window=WINDOW, use_sliding_window=True, layer_types=MIXED, head_dim=8),
}
CLASSIFIERS = sorted(set(FAMILIES) - {"Gemma 4"})  # for which transformers has no sequence classifier
SLIDES = [family for family, make in FAMILIES.items() if "sliding_window" in make.keywords]


def config_of(family, vocab_size=VOCABULARY, **options):
    sizes = {"vocab_size": vocab_size, "num_hidden_layers": 4, "max_position_embeddings": CONTEXT, **WIDTHS}
    return FAMILIES[family](bos_token_id=1, eos_token_id=2, pad_token_id=0, **sizes, **options)


@lru_cache
def language_model(family):
    torch.manual_seed(0)
    model = spread(AutoModelForCausalLM.from_config(config_of(family), dtype=torch.float32))
    model.generation_config.eos_token_id = [2, *range(5, VOCABULARY, 16)]
    return model


def slot_model(model, max_rows=8):
    return CausalModel(
        model,
        lambda **inputs: model(**inputs, logits_to_keep=1).logits[:, -1],
        max_rows=max_rows,
        max_length=CONTEXT,
        memory_bytes=1 << 26,
    )


@torch.no_grad()
def stock_greedy(model, prompt):
    ids = torch.tensor(np.asarray(prompt)[None]).long()
    output = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=NEW)
    return output[0, ids.shape[1] :].tolist()


@torch.no_grad()
def stock_logits(model, prompt):
    return model(torch.tensor(np.asarray(prompt)[None]).long(), use_cache=False).logits[0, -1]


def text(rng, low, high):
    return rng.integers(6, VOCABULARY, rng.integers(low, high)).astype(np.int32)


@pytest.mark.parametrize("max_rows", [8, 2], ids=["every episode has a slot", "slots are evicted"])
@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_equals_generate(family, max_rows):
    """Over turns of ragged batches: prompts shorter and longer than the window, and answers that cross it."""
    rng = np.random.default_rng(0)
    model = language_model(family)
    ours = slot_model(model, max_rows)
    stop = frozenset(model.generation_config.eos_token_id)
    episodes = [text(rng, *length) for length in [(1, 4), (2, 8), (5, 9), (9, 12), (20, 30), (60, 90)]]
    for _ in range(3):
        chosen = rng.permutation(len(episodes))[: rng.integers(3, 6)]
        uniforms = np.zeros((len(chosen), NEW), np.float32)
        answers = ours.generate([episodes[i] for i in chosen], uniforms, temperature=0, stop=stop)
        for i, answer in zip(chosen, answers, strict=True):
            assert answer.ids == stock_greedy(model, episodes[i])
            heard = np.array(answer.ids[: rng.integers(0, len(answer.ids) + 1)], np.int32)
            episodes[i] = np.concatenate([episodes[i], heard, text(rng, 1, 15)])


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_equal_the_plain_forward_pass(family):
    """Of branches of one stem, batched with a long newcomer; each branch reuses the slots of those before."""
    rng = np.random.default_rng(1)
    model = language_model(family)
    ours = slot_model(model)
    stem = text(rng, 60, 61)
    for turn in range(3):
        prompts = [np.concatenate([stem[: rng.integers(0, 60)], text(rng, 1, 20)]) for _ in range(7)]
        prompts.append(text(rng, 100 + 50 * turn, 101 + 50 * turn))
        expected = torch.stack([stock_logits(model, prompt) for prompt in prompts])
        torch.testing.assert_close(ours.outputs(prompts), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", SLIDES)
def test_a_mask_without_the_window_would_be_noticed(family, monkeypatch):
    """That the two tests above can fail: without windows, logits are off by far more than their tolerance."""
    model = language_model(family)
    prompt = text(np.random.default_rng(2), 60, 61)
    init = LayerMasks.__init__

    def without_windows(self, model):
        init(self, model)
        assert WINDOW in self._windows.values()
        self._windows = dict.fromkeys(self._windows)

    monkeypatch.setattr(LayerMasks, "__init__", without_windows)
    assert (slot_model(model).outputs([prompt])[0] - stock_logits(model, prompt)).abs().max() > 0.05


@pytest.mark.parametrize("family", CLASSIFIERS)
def test_q_equals_the_classifier_alone(family, tmp_path):
    """From a folder, as users have it. Candidates at a state share its prompt, later states that of earlier ones."""
    size = make_tokenizer([WORDS] * 20, tmp_path)
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config_of(family, vocab_size=size, num_labels=1))
    spread(model).save_pretrained(tmp_path)
    chats = [
        [*prompts.load("compact").messages(state(turn)), {"role": "assistant", "content": f"go to shelf {i}"}]
        for turn in (1, 2, 4)
        for i in range(4)
    ]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path, dtype=torch.float32).eval()
    with torch.no_grad():
        ids = [tokenizer.apply_chat_template(chat, return_tensors="pt", return_dict=False) for chat in chats]
        # Q does not read the last token, which ends the turn.
        expected = [float(torch.sigmoid(model(one[:, :-1], use_cache=False).logits)) for one in ids]
    assert min(one.shape[1] for one in ids) > WINDOW
    assert np.ptp(expected) > 0.05
    scores = PRMScorer(tmp_path, prompt="compact", max_batch=4).score_messages(chats)
    np.testing.assert_allclose(scores, expected, atol=1e-5)


SIZES = {"vocab_size": 20, "hidden_size": 16, "num_hidden_layers": 2}
HEADS = {"intermediate_size": 16, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8}
EXPERTS = {"num_experts": 2, "num_experts_per_tok": 1}
RECURRENT = ["linear_attention", FULL]


@pytest.mark.parametrize(
    ("config", "named"),
    [
        (MambaConfig(**SIZES, state_size=2), "linear_attention"),
        (JambaConfig(**SIZES, **HEADS, **EXPERTS, use_mamba_kernels=False), "linear_attention"),
        (Qwen3NextConfig(**SIZES, **HEADS, **EXPERTS, layer_types=RECURRENT), "linear_attention"),
        (Llama4TextConfig(**SIZES, **HEADS, intermediate_size_mlp=16, num_local_experts=2), "chunked_attention"),
        (RwkvConfig(**SIZES, attention_hidden_size=16), "cannot run in process"),  # whose config names no kinds
    ],
    ids=lambda value: getattr(value, "model_type", None),
)
def test_models_that_keep_more_than_keys_and_values_are_refused(config, named):
    model = AutoModelForCausalLM.from_config(config)
    with pytest.raises(UserError, match=f"{named}.*; serve it .*--server"):
        slot_model(model)

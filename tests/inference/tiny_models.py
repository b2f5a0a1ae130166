"""Random Llamas of two layers and their tokenizer, and transformers' own answers to compare with."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
)

from prm_gym.hosts.tiny_model import make_tokenizer
from prm_gym.types import State

CONTEXT = 700
WIDTHS = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
_KEPT = TemporaryDirectory()
WORDS = "You see a mug 1, a plate 2 and a desk 3. You arrive at shelf 4. Task: put a clean mug 1 in shelf 4."


def state(turns: int, game: str = "g", odd: str = "") -> State:
    """s_turns of a conversation; `odd` makes its first observation differ from that of others."""
    observations = tuple(f"You arrive at desk {t}. You see a mug {t * 7 % 5}.{odd}" for t in range(turns + 1))
    actions = tuple(f"go to desk {t}" for t in range(turns))
    return State(game, "put a clean mug 1 in shelf 4.", observations, actions, ("look",))


@lru_cache
def language_model() -> Path:
    """A folder; an eighth of the vocabulary ends the turn, so that responses end at different lengths."""
    folder = Path(_KEPT.name, "lm")
    config = _config(folder)
    model = spread(LlamaForCausalLM(config))
    ends = [config.eos_token_id, *range(5, config.vocab_size, 8)]
    model.generation_config = GenerationConfig(eos_token_id=ends, pad_token_id=0)
    model.save_pretrained(folder)
    return folder


@lru_cache
def classifier(num_labels: int = 1) -> Path:
    folder = Path(_KEPT.name, f"prm{num_labels}")
    spread(LlamaForSequenceClassification(_config(folder, num_labels=num_labels))).save_pretrained(folder)
    return folder


def _config(folder: Path, **options) -> LlamaConfig:
    size = make_tokenizer([WORDS] * 20, folder)
    torch.manual_seed(0)
    sizes = {"vocab_size": size, "num_hidden_layers": 2, "max_position_embeddings": CONTEXT, **WIDTHS}
    return LlamaConfig(eos_token_id=size - 1, pad_token_id=0, **sizes, **options)


def spread(model):
    """Weights large enough that contexts matter and likeliest tokens are no near ties."""
    for name, parameter in model.named_parameters():
        if "norm" not in name:
            parameter.data.mul_(6)
    return model.eval()


@lru_cache
def loaded():
    return AutoModelForCausalLM.from_pretrained(language_model(), dtype=torch.float32).eval()


@torch.no_grad()
def stock_greedy(prompt, tokens: int) -> list[int]:
    """What `model.generate` says to one prompt."""
    ids = torch.tensor(np.asarray(prompt)[None]).long()
    output = loaded().generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=tokens)
    return output[0, ids.shape[1] :].tolist()


@torch.no_grad()
def stock_logits(prompt) -> torch.Tensor:
    """The logits after one prompt, by a forward pass without a cache."""
    return loaded()(torch.tensor(np.asarray(prompt)[None]).long(), use_cache=False).logits[0, -1]


@lru_cache
def _exact():
    return AutoModelForCausalLM.from_pretrained(language_model(), dtype=torch.float64).eval()


@torch.no_grad()
def stock_logprobs(prompt, ids, temperature: float) -> tuple[float, float]:
    """The log-probability of `ids` after `prompt` at temperature 1 and at `temperature`, by one pass in float64."""
    tokens = torch.tensor([*map(int, prompt), *ids])
    logits = _exact()(tokens[None], use_cache=False).logits[0, len(prompt) - 1 : -1]
    chosen = tokens[len(prompt) :, None]
    plain = float(logits.log_softmax(-1).gather(-1, chosen).sum())
    if temperature == 0:
        return plain, 0.0
    return plain, float((logits / temperature).log_softmax(-1).gather(-1, chosen).sum())

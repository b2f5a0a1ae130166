"""A model and its tokenizer from a folder, checked before work starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from prm_gym.errors import UserError, first_line
from prm_gym.inference.model_location import check_model
from prm_gym.prompts.chat import template_of


def load_checkpoint(
    auto_class: Any, model: str | Path, device: str | torch.device | None, dtype: torch.dtype | None, **options: Any
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model for inference and its tokenizer; by default on a GPU in bfloat16, without one in float32.

    Raises `UserError` if either cannot be read, or the tokenizer has no pad token of its own or no chat template that
    can show a conversation.
    """
    check_model(model)
    tokenizer = load_tokenizer(model)
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(device)
    if dtype is None:
        dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    try:
        network = auto_class.from_pretrained(model, dtype=dtype, **options)
    except Exception as error:  # safetensors, tokenizers and torch each have errors of their own for damaged files
        raise _unreadable(model, error) from error
    return network.to(device).eval().requires_grad_(False), tokenizer


def check_checkpoint(folder: str | Path) -> None:
    """Raise `UserError` if the folder's config, its tokenizer or the header of a weight file cannot be read. Takes
    milliseconds, whatever the size of the weights.
    """
    load_tokenizer(folder)
    try:
        AutoConfig.from_pretrained(folder)
        for file in Path(folder).glob("*.safetensors"):
            with safe_open(file, "pt"):
                pass
    except Exception as error:  # as in `load_checkpoint`
        raise _unreadable(folder, error) from error


def load_tokenizer(model: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint, with the same checks as `load_checkpoint`."""
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(model)
    except Exception as error:  # as above
        raise _unreadable(model, error) from error
    template_of(tokenizer, model)
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        remedy = "give it one of its own, which no text contains, and resize the embeddings"
        raise UserError(model, "the tokenizer has no pad token apart from eos", remedy, field="pad_token")
    return tokenizer


def check_same_vocabulary(policy: str | Path, prm: str | Path) -> None:
    """Raise `UserError` unless both turn a chat into the same ids: Stage 3 scores the ids that were sampled."""
    theirs, ours = load_tokenizer(prm), load_tokenizer(policy)
    differing = set(theirs.get_vocab().items()) ^ set(ours.get_vocab().items())
    if differing or theirs.chat_template != ours.chat_template:
        problem = f"its tokenizer differs from that of {policy} (" + (
            f"e.g. {min(differing)[0]!r}" if differing else "the chat template"
        )
        raise UserError(prm, problem + ")", "train the reward model from the policy's own checkpoint")


def _unreadable(model: str | Path, error: Exception) -> UserError:
    problem = f"cannot be loaded ({type(error).__name__}: {first_line(error)})"
    return UserError(model, problem, "name a folder with a whole model, its config and tokenizer")

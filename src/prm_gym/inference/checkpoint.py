"""A model and its tokenizer from a folder, checked before work starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerBase

from prm_gym.errors import UserError, first_line
from prm_gym.inference.model_location import check_model
from prm_gym.prompts.tokenizer import load_tokenizer


def load_checkpoint(
    auto_class: Any, model: str | Path, device: str | torch.device | None, dtype: torch.dtype | None, **options: Any
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model for inference and its tokenizer; by default on a GPU in bfloat16, or on the CPU in float32.

    Raises `UserError` if the model cannot be read, and as `load_tokenizer`.
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
    except Exception as error:  # safetensors and torch raise errors of their own for damaged files
        raise _unreadable(model, error) from error
    return network.to(device).eval().requires_grad_(False), tokenizer


def check_checkpoint(folder: str | Path) -> None:
    """Raise `UserError` if the config, the tokenizer or the header of a weight file in `folder` cannot be read.

    Takes milliseconds, whatever the size of the weights.
    """
    load_tokenizer(folder)
    try:
        AutoConfig.from_pretrained(folder)
        for file in Path(folder).glob("*.safetensors"):
            with safe_open(file, "pt"):
                pass
    except Exception as error:  # as in `load_checkpoint`
        raise _unreadable(folder, error) from error


def _unreadable(model: str | Path, error: Exception) -> UserError:
    problem = f"cannot be loaded ({type(error).__name__}: {first_line(error)})"
    return UserError(model, problem, "name a folder with a whole model, its config and tokenizer")

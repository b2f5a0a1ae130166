"""V_mu(s) of a model that Stage 2 trained with `loss: value`, for the `shaping` label (paper, section 4.2).

The model reads a state as in training: the chat template over its prompt, open for the assistant's turn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from prm_gym.errors import UserError, first_line
from prm_gym.hosts.open_instruct import preflight
from prm_gym.prompts.chat import prompt_ids
from prm_gym.provenance.fingerprints import of_checkpoint
from prm_gym.provenance.model_config import architectures, model_config
from prm_gym.types import Message

ValueFunction = Callable[[Sequence[list[Message]]], list[float]]


def check_value_model(folder: str | PathLike[str]) -> Path:
    """`folder` as a path. Raises `UserError` unless it is a sequence classifier. Does not import torch."""
    path = Path(folder)
    if model_config(path) is None:
        remedy = "train it first, with `loss: value` on a dataset of `prm-gym label value`"
        raise UserError(path, "no model of V_mu", remedy, field="value_fn")
    named = architectures(path)
    if not any("SequenceClassification" in name for name in named):
        problem = f"is a {', '.join(named) or 'model without a head'}, whose values would be random"
        raise UserError(path, problem, "name a model trained with `loss: value`", field="value_fn")
    return path


def value_function(folder: str | PathLike[str], *, batch: int = 16) -> ValueFunction:
    """A function from prompts to V_mu in [0, 1]. Raises `UserError` as `check_value_model`."""
    import torch
    from transformers import AutoModelForSequenceClassification

    path = str(check_value_model(folder))
    tokenizer = preflight.load_tokenizer(path, None, "value_fn")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        model: Any = AutoModelForSequenceClassification.from_pretrained(path, num_labels=1, dtype="auto")
    except Exception as error:  # safetensors and torch have errors of their own for a damaged file
        problem = f"cannot be loaded ({type(error).__name__}: {first_line(error)})"
        raise UserError(path, problem, "name a whole checkpoint", field="value_fn") from error
    model = model.to(device).eval()
    model.config.pad_token_id = tokenizer.pad_token_id

    @torch.no_grad()
    def values(prompts: Sequence[list[Message]]) -> list[float]:
        ids = [prompt_ids(tokenizer, prompt) for prompt in prompts]
        found = [0.0] * len(ids)
        by_length = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        for rows in (by_length[first : first + batch] for first in range(0, len(ids), batch)):
            longest = len(ids[rows[-1]])
            padded = [ids[i] + [tokenizer.pad_token_id] * (longest - len(ids[i])) for i in rows]
            inputs = torch.tensor(padded, device=device)
            logits = model(input_ids=inputs, attention_mask=inputs != tokenizer.pad_token_id, use_cache=False).logits
            for i, value in zip(rows, logits.squeeze(-1).float().sigmoid().tolist(), strict=True):
                found[i] = value
        return found

    vars(values)["identity"] = of_checkpoint(path)
    return values

"""A model on a server, as this machine knows it: its settings, and the tokenizer that makes the ids sent to it."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from prm_gym.errors import UserError, first_line
from prm_gym.prompts.chat import Tokenizer, template_of
from prm_gym.provenance.fingerprints import of_checkpoint


def served_model(model: str, folder: str | PathLike[str], told: Mapping[str, Any]) -> dict[str, Any]:
    """The settings "model" and "served" of a model at a server: the fingerprint is that of the folder that the server
    names as its root, if that is a folder here too, else of `folder`.
    """
    root = told.get("root")
    here = isinstance(root, str) and Path(root).is_dir()
    identity = of_checkpoint(str(root) if here else folder)
    return {
        "model": {**identity, "name": model},
        "served": {name: value for name, value in told.items() if not (name == "root" and here)},
    }


def load_tokenizer(folder: str | PathLike[str]) -> Tokenizer:
    """The tokenizer in `folder`. Raises `UserError` if it cannot be read, or as `chat.template_of`."""
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise UserError("transformers", "is not installed", "pip install transformers") from error
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except Exception as error:  # tokenizers has no errors of its own for a damaged file
        problem = f"no tokenizer can be read ({first_line(error)})"
        raise UserError(folder, problem, "name the model's folder") from error
    template_of(tokenizer, folder)
    loaded: Tokenizer = tokenizer
    return loaded

"""Where a model is: a folder on this machine first, then the cache of the Hugging Face Hub, then the Hub itself.

For a missing folder transformers asks the Hub, and waits half a minute where there is no network. Here a missing folder
is an error at once, and the Hub is asked once.
"""

from __future__ import annotations

import os
import re
from os import PathLike
from pathlib import Path

from prm_gym.errors import UserError
from prm_gym.provenance.model_config import architectures

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_SECONDS = 5.0  # to wait for the Hub


def check_model(model: str | PathLike[str], flag: str | PathLike[str] | None = None) -> None:
    """Raise `UserError` unless `model` is a folder with a config.json, or a model on the Hub or in its cache.

    The error names `flag`, by default the model itself.
    """
    where = model if flag is None else flag
    said, folder = f"'{model}' " if flag is not None else "", Path(model)
    if folder.is_dir():
        if not any((folder / file).is_file() for file in ("config.json", "adapter_config.json")):
            raise UserError(where, f"{said}holds no model (no config.json)", "name the folder of a checkpoint")
        return
    if folder.exists():
        raise UserError(where, f"{said}is a file", "name the folder of a checkpoint")
    if _is_path(str(model)):
        raise UserError(where, f"{said}is no folder", "check the path")
    problem = _not_on_hub(str(model))
    if problem:
        remedy = "name the folder of a checkpoint (HF_HUB_OFFLINE=1 keeps to folders and the Hub's cache)"
        raise UserError(where, f"{said}is no folder here, and {problem}", remedy)


def check_policy(model: str | PathLike[str]) -> None:
    """Raise `UserError` as `check_model`, and for the folder of a Q: transformers would load it as a language model."""
    check_model(model)
    named = architectures(model)
    if any("SequenceClassification" in name for name in named):
        raise UserError(model, f"is a Q ({named[0]}), not a policy", "name the checkpoint of a policy")


def _is_path(model: str) -> bool:
    """Whether a name cannot be, or was not meant as, `model` or `owner/model` on the Hub."""
    owner, slash, _ = model.partition("/")
    return _HUB_ID.fullmatch(model) is None or model.startswith(".") or (bool(slash) and Path(owner).is_dir())


def _not_on_hub(model: str) -> str:
    """Why the Hub does not have the model; empty if it does."""
    try:
        from huggingface_hub import HfApi, try_to_load_from_cache
        from huggingface_hub.errors import RepositoryNotFoundError
    except ImportError:
        return "huggingface_hub is not installed"
    if isinstance(try_to_load_from_cache(model, "config.json"), str):
        return ""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return "HF_HUB_OFFLINE is set"
    try:
        HfApi().model_info(model, timeout=_SECONDS)
    except RepositoryNotFoundError:
        return "the Hugging Face Hub has no such model that you may read"
    except Exception as error:  # whatever its HTTP library raises
        return f"the Hugging Face Hub cannot be reached ({type(error).__name__})"
    return ""

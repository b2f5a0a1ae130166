"""What the config.json of a checkpoint says of its model, read without transformers."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import Any


def model_config(folder: str | PathLike[str], file: str = "config.json") -> dict[str, Any] | None:
    """The config `file` in `folder`; None if there is none (an adapter, a name on the Hub) or it cannot be read."""
    try:
        config = json.loads((Path(folder) / file).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return config if isinstance(config, dict) else None


def architectures(folder: str | PathLike[str]) -> tuple[str, ...]:
    """The classes of the model in `folder`, such as ("LlamaForCausalLM",); () if its config.json does not tell."""
    named = (model_config(folder) or {}).get("architectures")
    return tuple(name for name in named if isinstance(name, str)) if isinstance(named, list) else ()

"""The settings recorded for a model that runs on a server."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from prm_gym.provenance.fingerprints import of_checkpoint


def served_model(model: str, folder: str | PathLike[str], told: Mapping[str, Any]) -> dict[str, Any]:
    """The settings "model" and "served" of `model`; `told` are the facts that its server lists.

    The model is fingerprinted by the folder that the server names as its root, if that exists on this machine, else by
    `folder`.
    """
    root = told.get("root")
    here = isinstance(root, str) and Path(root).is_dir()
    identity = of_checkpoint(str(root) if here else folder)
    return {
        "model": {**identity, "name": model},
        "served": {name: value for name, value in told.items() if not (name == "root" and here)},
    }

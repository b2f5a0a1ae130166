"""The exact engine (stock alfworld stands in until it is written)."""

from __future__ import annotations

from os import PathLike

from prm_gym.envs.play import PlayableGame
from prm_gym.envs.stock import StockGame


def load(path: str | PathLike[str], *, cache: str | PathLike[str] | None = None) -> PlayableGame:
    """The game at `path`, ready to be played."""
    return StockGame(path)

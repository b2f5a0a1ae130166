"""Why the exact engine does not play a game."""

from __future__ import annotations


class Unsupported(Exception):
    """The game uses something that this engine does not prove to be exact; stock alfworld plays it."""


class Unsafe(Unsupported):
    """The game would have stock evaluate an expression of its own as Python, so it is not handed to stock either."""

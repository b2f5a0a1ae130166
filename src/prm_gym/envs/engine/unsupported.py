"""Why a game cannot be played by the exact engine; stock alfworld plays it then."""

from __future__ import annotations


class Unsupported(Exception):
    """The game uses something that this engine does not prove to be exact. The message says what."""

"""The reasons why the exact engine does not play a game."""

from __future__ import annotations


class Unsupported(Exception):
    """The engine cannot be proved exact for the game; stock alfworld plays it."""


class Unsafe(Unsupported):
    """Stock would evaluate an expression of the game as Python, so stock does not play it either."""

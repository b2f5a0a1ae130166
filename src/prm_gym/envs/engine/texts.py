"""Texts from their sketches and the facts that hold. `sketches` makes the sketches while a game is compiled.

A sketch is plain data:

    "some text"
    number                                  another sketch, by its number in the game's table
    ["join", [sketch, ...]]                 one after the other
    ["first", [sketch, ...], [guards, ...], otherwise]
                                            the first of which some guard holds
    ["list", [sketch, ...], guards, empty, separator, last separator]
                                            an enumeration of those whose guards hold

A guard says which facts must hold, as bits (see `facts`) joined by "&"; an empty one always holds. Guards are written
in one string, parted by blanks, as there are many.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from typing import Any


class Text:
    """A text that depends on facts, those in the set `reads`. `written` has what it was, by those that held."""

    __slots__ = ("reads", "sketch", "written")

    def __init__(self, reads: str, sketch: Any) -> None:
        self.reads = int(reads, 16)
        self.sketch = sketch
        self.written: dict[int, str] = {}


def write(sketch: Any, table: Sequence[str | Text], facts: set[str]) -> str:
    """What a sketch says when `facts` hold: their bits, and the empty string. `table` has the texts by number."""
    if isinstance(sketch, str):
        return sketch
    if isinstance(sketch, int):
        text = table[sketch]
        return text if isinstance(text, str) else write(text.sketch, table, facts)
    kind, parts, *rest = sketch
    if kind == "join":
        return "".join([write(part, table, facts) for part in parts])
    if kind == "first":
        conditions, otherwise = rest
        chosen = (part for part, guards in zip(parts, conditions, strict=True) if any(_hold(guards, facts)))
        return write(next(chosen, otherwise), table, facts)
    guards, empty, separator, last_separator = rest
    texts = [write(part, table, facts) for part in compress(parts, _hold(guards, facts))]
    if len(texts) < 2:
        return texts[0] if texts else write(empty, table, facts)
    return write(separator, table, facts).join(texts[:-1]) + write(last_separator, table, facts) + texts[-1]


def _hold(guards: str, facts: set[str]) -> list[bool]:
    return [guard in facts or ("&" in guard and facts.issuperset(guard.split("&"))) for guard in guards.split(" ")]

"""Render texts from templates and the true facts. `text_templates` makes the templates when a game is compiled.

A template is plain data:

    "some text"
    number                                  another template, by its number in the game's table
    ["join", [template, ...]]                 their concatenation
    ["first", [template, ...], [guards, ...], otherwise]
                                            the first one with a true guard
    ["list", [template, ...], guards, empty, separator, last separator]
                                            an enumeration of those with a true guard

A guard is a conjunction of facts, as bits (see `fact_index`) joined by "&"; an empty one is true. Guards are written as
one string, separated by blanks, to save space.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from typing import Any


class Text:
    """A text that depends on the facts in the set `reads`. `written` caches it by the true ones."""

    __slots__ = ("reads", "template", "written")

    def __init__(self, reads: str, template: Any) -> None:
        self.reads = int(reads, 16)
        self.template = template
        self.written: dict[int, str] = {}


def write(template: Any, table: Sequence[str | Text], facts: set[str]) -> str:
    """Render a template. `facts` are the bits of the true facts, and ""; `table` has the texts by number."""
    if isinstance(template, str):
        return template
    if isinstance(template, int):
        text = table[template]
        return text if isinstance(text, str) else write(text.template, table, facts)
    kind, parts, *rest = template
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

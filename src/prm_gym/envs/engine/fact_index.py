"""An index of the facts that texts may read, for the compiler.

A state of a compiled game is an integer with a bit for each variable. So is the history, whose bits are the facts
deleted since the start (stock keeps only these as `not_...`). Texts read one set of bits: the state's, and above them
the history's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

NEGATION = "not_"
Known = tuple[str, tuple[int, ...], int | None]  # predicate, numbers of its arguments, bit (None if constant)
Matching = tuple[tuple[int, ...], int | None]


@dataclass(frozen=True, slots=True)
class Entity:
    """An object of the game. `name` is its name in the texts; `id` and `type` are those of the problem."""

    id: str
    type: str
    name: str


@dataclass(frozen=True, slots=True)
class Atom:
    """One atom of a query: a predicate over placeholders, and the matching signatures, in order."""

    predicate: str
    placeholders: tuple[tuple[str, str], ...]
    signatures: tuple[tuple[str, ...], ...]


class FactIndex:
    """All facts that can hold in a game. Entities are numbered in the order of their ids, as arguments are sorted."""

    def __init__(self, entities: Sequence[Entity], facts: Iterable[Known]) -> None:
        self.entities = entities
        self._known: dict[tuple[str, tuple[str, ...]], list[Matching]] = {}
        self._found: dict[tuple[str, tuple[tuple[str, ...], ...], tuple[int | None, ...]], list[Matching]] = {}
        for predicate, arguments, bit in facts:
            types = tuple(entities[argument].type for argument in arguments)
            self._known.setdefault((predicate, types), []).append((arguments, bit))
        for known in self._known.values():
            known.sort(key=lambda fact: fact[0])

    def matching(self, atom: Atom, values: tuple[int | None, ...]) -> Sequence[Matching]:
        """The facts that match `atom` with these arguments (None if free), in stock's order."""
        key = atom.predicate, atom.signatures, values
        if key not in self._found:
            found = [fact for signature in atom.signatures for fact in self._known.get((atom.predicate, signature), ())]
            for place, value in enumerate(values):
                if value is not None:
                    found = [fact for fact in found if fact[0][place] == value]
            self._found[key] = found
        return self._found[key]

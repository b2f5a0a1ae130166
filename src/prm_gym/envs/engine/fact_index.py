"""The facts that texts may read, indexed, while a game is compiled.

A state of a compiled game is an integer, one bit for each variable; so is the history, whose bits say which facts an
action has taken back since the start (stock keeps such a fact as `not_...`, and only those). What texts read is one
set of bits, the state's and above them the history's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

NEGATION = "not_"
Known = tuple[str, tuple[int, ...], int | None]  # predicate, the numbers of its arguments, bit (None if forever true)
Matching = tuple[tuple[int, ...], int | None]


@dataclass(frozen=True, slots=True)
class Entity:
    """A thing of the game. `name` is what the player reads; `id` and `type` are the problem's."""

    id: str
    type: str
    name: str


@dataclass(frozen=True, slots=True)
class Atom:
    """One atom of a query: a predicate over placeholders, and the signatures whose facts match it, in order."""

    predicate: str
    placeholders: tuple[tuple[str, str], ...]
    signatures: tuple[tuple[str, ...], ...]


class FactIndex:
    """All facts of a game that can ever hold. Entities are numbered by their ids in order, so arguments sort alike."""

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
        """The facts that match `atom` with these arguments (None where one is free), in stock's order."""
        key = atom.predicate, atom.signatures, values
        if key not in self._found:
            found = [fact for signature in atom.signatures for fact in self._known.get((atom.predicate, signature), ())]
            for place, value in enumerate(values):
                if value is not None:
                    found = [fact for fact in found if fact[0][place] == value]
            self._found[key] = found
        return self._found[key]

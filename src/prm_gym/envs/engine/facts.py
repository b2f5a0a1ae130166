"""The facts that texts may read, indexed, and what of a state a text has read.

A state is an integer, one bit for each variable; so is the history, whose bits say which facts an action has taken
back since the start (stock keeps such a fact as `not_...`, and only those). A fact is a variable of the state, a bit of
the history, or true forever.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prm_gym.envs.engine.bits import mask, numbers

ALWAYS, STATE, HISTORY = range(3)
NEGATION = "not_"
Indexed = tuple[str, tuple[int, ...]]  # predicate and the numbers of its arguments


@dataclass(frozen=True, slots=True)
class Entity:
    """A thing of the game. `name` is what the player reads; `id` and `type` are the problem's."""

    id: str
    type: str
    name: str


class Atom:
    """One atom of a query: a predicate over placeholders, and the signatures whose facts match it, in order."""

    __slots__ = ("placeholders", "predicate", "signatures")

    def __init__(
        self,
        predicate: str,
        placeholders: tuple[tuple[str, str], ...],
        signatures: tuple[tuple[str, ...], ...],
    ) -> None:
        self.predicate = predicate
        self.placeholders = placeholders
        self.signatures = signatures


@dataclass(frozen=True, slots=True)
class Candidates:
    """The facts that can match an atom, in stock's order: (kind, variable, arguments); and the bits they depend on."""

    facts: tuple[tuple[int, int, tuple[int, ...]], ...]
    state_mask: int
    history_mask: int
    any_always: bool


class FactIndex:
    """All facts of a game that can ever hold. Entities are numbered by their ids in order, so arguments sort alike."""

    def __init__(
        self,
        entities: Sequence[Entity],
        always: Sequence[Indexed],
        variables: Mapping[int, Indexed],
        history: Sequence[int],
    ) -> None:
        self.entities = entities
        known: dict[tuple[str, tuple[str, ...]], list[tuple[int, int, tuple[int, ...]]]] = {}

        def add(kind: int, number: int, predicate: str, arguments: tuple[int, ...]) -> None:
            types = tuple(entities[argument].type for argument in arguments)
            known.setdefault((predicate, types), []).append((kind, number, arguments))

        for predicate, arguments in always:
            add(ALWAYS, 0, predicate, arguments)
        for number, (predicate, arguments) in variables.items():
            add(STATE, number, predicate, arguments)
        for number in history:
            predicate, arguments = variables[number]
            add(HISTORY, number, NEGATION + predicate, arguments)
        for facts in known.values():
            facts.sort(key=lambda fact: fact[2])
        self._known = known
        self._candidates: dict[tuple[Atom, tuple[int | None, ...]], Candidates] = {}

    def candidates(self, atom: Atom, values: tuple[int | None, ...]) -> Candidates:
        """The facts that match `atom` with these arguments; None where the argument is free."""
        key = (atom, values)
        found = self._candidates.get(key)
        if found is None:
            facts = tuple(
                fact
                for signature in atom.signatures
                for fact in self._known.get((atom.predicate, signature), ())
                if all(value is None or value == is_ for value, is_ in zip(values, fact[2], strict=True))
            )
            found = self._candidates[key] = Candidates(
                facts,
                mask(number for kind, number, _ in facts if kind == STATE),
                mask(number for kind, number, _ in facts if kind == HISTORY),
                any(kind == ALWAYS for kind, _, _ in facts),
            )
        return found

    def types_at(self, atom: Atom) -> list[set[str]]:
        """For every argument of `atom`, the types of the entities that facts of the game hold there."""
        found: list[set[str]] = [set() for _ in atom.placeholders]
        for signature in atom.signatures:
            if (atom.predicate, signature) in self._known:
                for types, kind in zip(found, signature, strict=True):
                    types.add(kind)
        return found


class View:
    """A state and its history, as a text reads them. `state_read` and `history_read` collect the bits it looked at."""

    __slots__ = ("history", "history_read", "index", "state", "state_read")

    def __init__(self, index: FactIndex, state: int, history: int) -> None:
        self.index = index
        self.state = state
        self.history = history
        self.state_read = 0
        self.history_read = 0

    def matches(self, atom: Atom, values: tuple[int | None, ...]) -> Sequence[tuple[int, ...]]:
        """The arguments of the facts that hold and match, in stock's order."""
        found = self.index.candidates(atom, values)
        self.state_read |= found.state_mask
        self.history_read |= found.history_mask
        state, history = self.state & found.state_mask, self.history & found.history_mask
        if not (state or history or found.any_always):
            return ()
        true = (), set(numbers(state)), set(numbers(history))
        return [args for kind, number, args in found.facts if kind == ALWAYS or number in true[kind]]


Binding = Mapping[tuple[str, str], int]  # from placeholder (name, type) to the number of an entity

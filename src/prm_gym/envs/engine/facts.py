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
Binding = Mapping[tuple[str, str], int]  # from placeholder (name, type) to the number of an entity
_Known = tuple[int, int, tuple[int, ...]]  # kind, variable, arguments


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

    facts: tuple[_Known, ...]
    state_mask: int
    history_mask: int
    any_always: bool


class FactIndex:
    """All facts of a game that can ever hold. Entities are numbered by their ids in order, so arguments sort alike.

    `always` has the facts that never change, `variables` those of the state by their number, `history` the numbers
    whose negation the texts may ask for.
    """

    def __init__(
        self,
        entities: Sequence[Entity],
        always: Sequence[Indexed],
        variables: Mapping[int, Indexed],
        history: Sequence[int],
    ) -> None:
        self.entities = entities
        # By predicate and signature; then also by the place and value of one argument.
        self._known: dict[tuple[str, tuple[str, ...]], list[_Known]] = {}
        self._by_argument: dict[tuple[str, tuple[str, ...], int, int], list[_Known]] = {}
        self._signatures: dict[Atom, list[tuple[str, ...]]] = {}  # those that any fact has
        self._candidates: dict[tuple[Atom, tuple[int | None, ...]], Candidates] = {}
        for predicate, arguments in always:
            self._add(predicate, (ALWAYS, 0, arguments))
        for number, (predicate, arguments) in variables.items():
            self._add(predicate, (STATE, number, arguments))
        for number in history:
            predicate, arguments = variables[number]
            self._add(NEGATION + predicate, (HISTORY, number, arguments))
        for (predicate, types), facts in self._known.items():
            facts.sort(key=lambda fact: fact[2])
            for fact in facts:
                for place, value in enumerate(fact[2]):
                    self._by_argument.setdefault((predicate, types, place, value), []).append(fact)

    def candidates(self, atom: Atom, values: tuple[int | None, ...]) -> Candidates:
        """The facts that match `atom` with these arguments; None where the argument is free."""
        found = self._candidates.get((atom, values))
        if found is None:
            signatures = self._signatures.get(atom)
            if signatures is None:
                signatures = [signature for signature in atom.signatures if (atom.predicate, signature) in self._known]
                self._signatures[atom] = signatures
            facts = [fact for signature in signatures for fact in self._matching(atom, signature, values)]
            found = self._candidates[atom, values] = Candidates(
                tuple(facts),
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

    def _add(self, predicate: str, fact: _Known) -> None:
        types = tuple(self.entities[argument].type for argument in fact[2])
        self._known.setdefault((predicate, types), []).append(fact)

    def _matching(self, atom: Atom, signature: tuple[str, ...], values: tuple[int | None, ...]) -> Sequence[_Known]:
        facts = self._known[atom.predicate, signature]
        bound = [(place, value) for place, value in enumerate(values) if value is not None]
        if not bound:
            return facts
        place, wanted = bound.pop()
        facts = self._by_argument.get((atom.predicate, signature, place, wanted), [])
        return [fact for fact in facts if all(fact[2][at] == value for at, value in bound)] if bound else facts


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

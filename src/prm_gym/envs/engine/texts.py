"""From the grammar's plain data (see `grammar`) to functions that write texts. Needs nothing but the data.

What stock does, kept exactly: of a rule's productions the first whose condition has a solution is taken; solutions come
in the order of atoms, within an atom in that of signatures and then of arguments; two placeholders never stand for the
same entity, those bound already included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from prm_gym.envs.engine.facts import Atom, Binding, View

# Variables by name, placeholders by (name, type), and the facts.
Context = tuple[Mapping[str, int], Binding, View]
Text = Callable[[Context], str]
Texts = Callable[[Context], list[str]]


class Query:
    """A conjunction of atoms."""

    def __init__(self, atoms: Sequence[Any]) -> None:
        self.atoms = tuple(
            Atom(predicate, tuple(map(tuple, placeholders)), tuple(map(tuple, signatures)))
            for predicate, placeholders, signatures in atoms
        )

    def solutions(self, binding: Binding, view: View) -> Iterator[Binding]:
        """Every way to bind the placeholders, beginning with `binding`."""
        bound = dict(binding)
        return self._solutions(0, bound, set(bound.values()), view)

    def holds(self, binding: Binding, view: View) -> bool:
        return next(self.solutions(binding, view), None) is not None

    def _solutions(
        self, depth: int, bound: dict[tuple[str, str], int], used: set[int], view: View
    ) -> Iterator[Binding]:
        if depth == len(self.atoms):
            yield dict(bound)
            return
        atom = self.atoms[depth]
        placeholders = atom.placeholders
        for arguments in view.matches(atom, tuple(map(bound.get, placeholders))):
            new = []
            for placeholder, entity in zip(placeholders, arguments, strict=True):
                already = bound.get(placeholder)
                if already is None:
                    if entity in used:
                        break
                    bound[placeholder] = entity
                    used.add(entity)
                    new.append(placeholder)
                elif already != entity:  # a placeholder that stands twice in this atom
                    break
            else:
                yield from self._solutions(depth + 1, bound, used, view)
            for placeholder in new:
                used.discard(bound.pop(placeholder))


class Writer:
    """The compiled rules of a grammar, shared by all games that have it.

    `rules` maps a rule's name to its productions, each `[query or None, symbols]`.
    """

    def __init__(self, rules: Mapping[str, Sequence[tuple[Any, Sequence[Any]]]]) -> None:
        self._productions = rules
        self._rules: dict[str, Text] = {}

    def text(self, symbols: Sequence[Any]) -> Text:
        """The text of some symbols, one after the other."""
        parts = [self._symbol(symbol) for symbol in symbols]
        if len(parts) == 1:
            return parts[0]
        return lambda context: "".join([part(context) for part in parts])

    def _rule(self, name: str) -> Text:
        text = self._rules.get(name)
        if text is None:
            productions = [
                (None if condition is None else Query(condition), self.text(symbols))
                for condition, symbols in self._productions[name]
            ]

            def text(context: Context) -> str:
                for query, production in productions:
                    if query is None or query.holds(context[1], context[2]):
                        return production(context)
                raise LookupError(f"no production of {name!r} applies")

            if productions[0][0] is None:
                text = productions[0][1]
            self._rules[name] = text
        return text

    def _symbol(self, symbol: Any) -> Text:
        if isinstance(symbol, str):
            return lambda context: symbol
        kind, *rest = symbol
        if kind == "rule":
            return self._rule(rest[0])
        if kind == "value":
            return _value(rest[0])
        each = self._each(*rest)
        if kind == "each":
            return lambda context: "".join(each(context))
        return self._enumeration(each)

    def _each(self, symbol: Any, condition: Any) -> Texts:
        text = self._symbol(symbol)
        if condition is None:
            return lambda context: [text(context)]
        query = Query(condition)

        def texts(context: Context) -> list[str]:
            names, binding, view = context
            return [
                text(({**names, **{name: entity for (name, _), entity in solution.items()}}, solution, view))
                for solution in query.solutions(binding, view)
            ]

        return texts

    def _enumeration(self, each: Texts) -> Text:
        empty, separator, last_separator = map(self._rule, ("list_empty", "list_separator", "list_last_separator"))

        def text(context: Context) -> str:
            texts = each(context)
            if not texts:
                return empty(context)
            if len(texts) == 1:
                return texts[0]
            return separator(context).join(texts[:-1]) + last_separator(context) + texts[-1]

        return text


def _value(alternatives: Sequence[Sequence[Any]]) -> Text:
    sums = [[_part(part) for part in parts] for parts in alternatives]

    def text(context: Context) -> str:
        value = ""
        for parts in sums:
            value = "".join([part(context) for part in parts])
            if value:
                break
        return value

    if len(sums) == 1 and len(sums[0]) == 1:
        return sums[0][0]
    return text


def _part(part: Any) -> Text:
    if isinstance(part, str):
        return lambda context: part
    variable, attribute = part
    if attribute == "definite":
        return lambda context: "the"
    if attribute == "indefinite":
        return lambda context: "a"
    if attribute == "id":
        return lambda context: context[2].index.entities[context[0][variable]].id
    return lambda context: context[2].index.entities[context[0][variable]].name

"""The predicates that a text may read, found without rendering it, to prove that the engine supports a game.

A text with an unknown rule or variable, with recursion, or without a default production could make stock fail in the
middle of a game. Such games are refused here, and played by stock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prm_gym.envs.engine.unsupported import Unsupported

Placeholder = tuple[str, str]
_SEPARATORS = ("list_empty", "list_separator", "list_last_separator")


def read(
    rules: Mapping[str, Sequence[tuple[Any, Sequence[Any]]]],
    symbols: Sequence[Any],
    parameters: Sequence[Placeholder],
) -> set[str]:
    """The predicates that `symbols` may read in any state, with the placeholders `parameters` bound.

    Raises `Unsupported`, see the module.
    """
    walk = _Walk(rules)
    walk.symbols(symbols, frozenset(parameters), ())
    return walk.predicates


class _Walk:
    def __init__(self, rules: Mapping[str, Sequence[tuple[Any, Sequence[Any]]]]) -> None:
        self.rules = rules
        self.predicates: set[str] = set()
        self.seen: set[tuple[str, frozenset[Placeholder]]] = set()

    def symbols(self, symbols: Sequence[Any], bound: frozenset[Placeholder], path: tuple[str, ...]) -> None:
        for symbol in symbols:
            self.symbol(symbol, bound, path)

    def symbol(self, symbol: Any, bound: frozenset[Placeholder], path: tuple[str, ...]) -> None:
        if isinstance(symbol, str):
            return
        kind, *rest = symbol
        if kind == "rule":
            self.rule(rest[0], bound, path)
        elif kind == "value":
            self.value(rest[0], bound)
        else:
            inner, condition = rest
            within = bound if condition is None else bound | self.query(condition, bound)
            self.symbol(inner, within, path)
            if kind == "list":
                for separator in _SEPARATORS:
                    self.rule(separator, bound, path)

    def rule(self, name: str, bound: frozenset[Placeholder], path: tuple[str, ...]) -> None:
        if name in path:
            raise Unsupported(f"the grammar's rule {name!r} calls itself")
        productions = self.rules.get(name)
        if not productions:
            raise Unsupported(f"the grammar has no rule {name!r}")
        if all(condition is not None for condition, _ in productions):
            raise Unsupported(f"the grammar's rule {name!r} may have no production that applies")
        if (name, bound) in self.seen:
            return
        self.seen.add((name, bound))
        for condition, symbols in productions:
            if condition is not None:
                self.query(condition, bound)
            self.symbols(symbols, bound, (*path, name))

    def value(self, alternatives: Sequence[Sequence[Any]], bound: frozenset[Placeholder]) -> None:
        names = {name for name, _ in bound}
        for parts in alternatives:
            for part in parts:
                if not isinstance(part, str) and part[0] not in names:
                    raise Unsupported(f"the grammar prints {part[0]!r} where nothing is bound to it")

    def query(self, query: Sequence[Any], bound: frozenset[Placeholder]) -> frozenset[Placeholder]:
        """Record the query; returns the placeholders that a solution binds."""
        for predicate, placeholders, _ in query:
            named = [(name, kind) for name, kind in placeholders]
            self.predicates.add(predicate)
            bound |= frozenset(named)
        return bound

"""Compile a grammar's symbols to templates (`text_rendering`): functions of the true facts, with all queries solved.

Done when a game is compiled, for every action and its arguments, with exactly the semantics of stock: of a rule's
productions, the first whose condition has a solution is taken; solutions are in the order of atoms, within an atom in
that of signatures and then of arguments; two placeholders, bound ones included, never denote the same entity. Constant
facts are resolved here, the others remain as bits (see `fact_index`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from prm_gym.envs.engine.bitsets import mask
from prm_gym.envs.engine.fact_index import Atom, FactIndex
from prm_gym.envs.engine.unsupported import Unsupported

Binding = Mapping[tuple[str, str], int]  # from placeholder (name, type) to the number of an entity
Names = Mapping[str, int]  # from variable to the number of an entity
Bits = tuple[int, ...]
Template = Any  # see `text_rendering`

MOST_SOLUTIONS = 10_000  # per query; alfworld's have a few hundred at most


class TemplateBuilder:
    """The templates of one game, numbered in the order of creation, without duplicates.

    `rules` maps a rule's name to its productions, each `[query or None, symbols]`, see `grammar`.
    """

    def __init__(self, rules: Mapping[str, Sequence[tuple[Any, Sequence[Any]]]], index: FactIndex) -> None:
        self.rules = rules
        self.index = index
        self._numbers: dict[str, int] = {}
        self._templates: list[Template] = []
        self._reads: list[frozenset[int]] = []

    def text(self, symbols: Sequence[Any], parameters: Binding) -> int:
        """The number of the template of a concatenation of symbols."""
        template = self._symbols(symbols, {name: entity for (name, _), entity in parameters.items()}, parameters)
        return template if isinstance(template, int) else self._number(template)

    def constant(self, symbols: Sequence[Any], parameters: Binding) -> str:
        """The text of symbols that depend on constant facts only."""
        text = self._templates[self.text(symbols, parameters)]
        assert isinstance(text, str)
        return text

    def table(self) -> list[str | tuple[str, Template]]:
        """By number the text, or the bits it depends on (as a hexadecimal number) and its template."""
        return [
            template if isinstance(template, str) else (f"{mask(reads):x}", template)
            for template, reads in zip(self._templates, self._reads, strict=True)
        ]

    def _number(self, template: Template) -> int:
        key = json.dumps(template)
        if key not in self._numbers:
            self._numbers[key] = len(self._templates)
            self._templates.append(template)
            self._reads.append(frozenset(self._bits(template)))
        return self._numbers[key]

    def _bits(self, template: Template) -> Iterator[int]:
        if isinstance(template, int):
            yield from self._reads[template]
        elif not isinstance(template, str):
            kind, parts, *rest = template
            guards = rest.pop(0) if rest else ""
            for part in (*parts, *rest):
                yield from self._bits(part)
            for bits in guards if kind == "first" else [guards]:
                yield from map(int, bits.replace("&", " ").split())

    def _symbols(self, symbols: Sequence[Any], names: Names, binding: Binding) -> Template:
        return _joined(self._symbol(symbol, names, binding) for symbol in symbols)

    def _symbol(self, symbol: Any, names: Names, binding: Binding) -> Template:
        if isinstance(symbol, str):
            return symbol
        kind, *rest = symbol
        if kind == "rule":
            return self._rule(rest[0], names, binding)
        if kind == "value":
            return self._value(rest[0], names)
        inner, condition = rest
        parts: list[Template] = []
        guards: list[Bits] = []
        for solution, bits in [(binding, ())] if condition is None else self._solutions(condition, binding):
            bound = {**names, **{name: entity for (name, _), entity in solution.items()}}
            parts.append(self._symbol(inner, bound, solution))
            guards.append(bits)
        around: list[Template] = ["", "", ""]
        if kind == "list":
            separators = ("list_empty", "list_separator", "list_last_separator")
            around = [self._rule(name, names, binding) for name in separators]
        return _enumerated(parts, guards, *around)

    def _rule(self, name: str, names: Names, binding: Binding) -> Template:
        options: list[Template] = []
        conditions: list[str] = []
        for condition, symbols in self.rules[name]:
            guards: set[Bits] = {()}
            if condition is not None:
                guards = {bits for _, bits in self._solutions(condition, binding)}
            if guards:
                text = self._symbols(symbols, names, binding)
                if () in guards:
                    template = ["first", options, conditions, text] if options else text
                    return template if isinstance(template, (str, int)) else self._number(template)
                options.append(text)
                conditions.append(_encoded(sorted(guards)))
        raise LookupError(f"no production of {name!r} applies")  # `text_dependencies` has refused such a grammar

    def _value(self, alternatives: Sequence[Sequence[Any]], names: Names) -> str:
        value = ""
        for parts in alternatives:
            value = "".join(part if isinstance(part, str) else self._attribute(names, *part) for part in parts)
            if value:
                break
        return value

    def _attribute(self, names: Names, variable: str, attribute: str) -> str:
        if attribute in ("definite", "indefinite"):
            return "the" if attribute == "definite" else "a"
        entity = self.index.entities[names[variable]]
        return entity.id if attribute == "id" else entity.name

    def _solutions(self, query: Sequence[Any], binding: Binding) -> Iterator[tuple[Binding, Bits]]:
        """Every binding of the placeholders that may hold in some state, with the bits it requires."""
        atoms = [
            Atom(predicate, tuple(map(tuple, placeholders)), tuple(map(tuple, signatures)))
            for predicate, placeholders, signatures in query
        ]
        bound = dict(binding)
        found = self._matches(atoms, bound, set(bound.values()), frozenset())
        yield from islice(found, MOST_SOLUTIONS)
        if next(found, None) is not None:
            raise Unsupported(f"a text may ask for more than {MOST_SOLUTIONS} combinations of facts")

    def _matches(
        self, atoms: Sequence[Atom], bound: dict[tuple[str, str], int], used: set[int], bits: frozenset[int]
    ) -> Iterator[tuple[Binding, Bits]]:
        if not atoms:
            yield dict(bound), tuple(sorted(bits))
            return
        placeholders = atoms[0].placeholders
        for arguments, bit in self.index.matching(atoms[0], tuple(map(bound.get, placeholders))):
            new = []
            for placeholder, entity in zip(placeholders, arguments, strict=True):
                already = bound.get(placeholder)
                if already is None:
                    if entity in used:
                        break
                    bound[placeholder] = entity
                    used.add(entity)
                    new.append(placeholder)
                elif already != entity:  # a placeholder that occurs twice in this atom
                    break
            else:
                yield from self._matches(atoms[1:], bound, used, bits if bit is None else bits | {bit})
            for placeholder in new:
                used.discard(bound.pop(placeholder))


def _joined(parts: Iterable[Template]) -> Template:
    """The concatenation of templates, with adjacent constant texts joined."""
    joined: list[Template] = []
    for part in parts:
        for piece in part[1] if isinstance(part, list) and part[0] == "join" else [part]:
            if isinstance(piece, str) and joined and isinstance(joined[-1], str):
                joined[-1] += piece
            elif piece != "":
                joined.append(piece)
    if not joined:
        return ""
    return joined[0] if len(joined) == 1 else ["join", joined]


def _enumerated(
    parts: list[Template], guards: list[Bits], empty: Template, separator: Template, last: Template
) -> Template:
    """An enumeration of the parts whose bits are true."""
    if any(guards):
        return ["list", parts, _encoded(guards), empty, separator, last]
    if len(parts) < 2:
        return parts[0] if parts else empty
    separated = [piece for part in parts[:-1] for piece in (separator, part)]
    return _joined([*separated[1:], last, parts[-1]])


def _encoded(guards: Iterable[Bits]) -> str:
    """Guards in the format of templates."""
    return " ".join("&".join(map(str, bits)) for bits in guards)

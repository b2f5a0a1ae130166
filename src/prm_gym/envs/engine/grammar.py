"""Parse a game's grammar to plain data. Needed to compile, not to play.

TextWorld's own parsers read the text, so their quirks are kept. Their result is converted to lists for
`text_templates`:

    symbols  [symbol, ...]                              the concatenation of their texts
    symbol   "some text"
             ["rule", name]                             the first rule of that name whose condition holds
             ["value", [[part, ...], ...]]              the first alternative that is not empty; a part is a text or
                                                        [variable, attribute]
             ["each", symbol, query or None]            the symbol for every solution of the query
             ["list", symbol, query or None]            the same, as an enumeration with separators
    query    [[predicate, [[name, type], ...], [[type, ...], ...]], ...]   a conjunction: atoms with their placeholders,
                                                        and all signatures that match them, subtypes after types

Expressions of the game file are never evaluated: `expression` parses the few forms of alfworld and refuses others.
"""

from __future__ import annotations

import keyword
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from prm_gym.envs.engine.unsupported import Unsafe, Unsupported
from prm_gym.envs.textworld_lock import exclusive

Symbol = Any  # the lists above
Query = list[Any]

ATTRIBUTES = ("name", "id", "definite", "indefinite")
# Names that stock's evaluation shadows.
_TAKEN = ("self", "context", "value")
_TOKEN = re.compile(r"\s*(?:(?P<name>[A-Za-z_]\w*)(?:\.(?P<attribute>\w+))?|(?P<plus>\+)|'(?P<text>[^'\\]*)')")
_PLAIN_TASK = re.compile(r"Your task is to: ([A-Za-z0-9 ,'-]+)\.\"")
_TASK_MARK = "QtaskQ"
_PROBLEM = "its grammar has the expression {{{}}}"


@dataclass(frozen=True)
class Rule:
    condition: Query | None
    symbols: list[Symbol]


@dataclass(frozen=True)
class Grammar:
    """`rules` by name, and for every action the symbols of its command and of its feedback."""

    rules: dict[str, list[Rule]]
    commands: dict[str, list[Symbol]]
    feedback: dict[str, list[Symbol]]


def check_safe(text: str) -> None:
    """Raise `Unsafe` if the grammar has an expression that stock would evaluate and `expression` does not know."""
    actions, rules = _parsed(_without_task(text)[0])
    pending: list[Any] = [production.rhs for productions in rules.values() for production in productions]
    pending += [_symbols(text) for texts in actions.values() for text in texts]
    while pending:
        symbol = pending.pop()
        if isinstance(symbol, list):
            pending += symbol
        elif type(symbol).__name__ == "EvalSymbol":
            expression(symbol.expression)
        else:
            pending += [inner for inner in vars(symbol).values() if hasattr(inner, "derive")]


def parse(text: str, types: tuple[tuple[str, tuple[str, ...]], ...]) -> Grammar:
    """Parse a grammar with the given type hierarchy. Raises `Unsupported` if `text_templates` cannot compile it."""
    text, task = _without_task(text)
    actions, rules = _parsed(text)
    reader = _Reader(types, task)
    try:
        return Grammar(
            {name: [reader.rule(rule) for rule in found] for name, found in rules.items()},
            {name: reader.symbols(_symbols(template)) for name, (template, _) in actions.items()},
            {name: reader.symbols(_symbols(feedback)) for name, (_, feedback) in actions.items()},
        )
    except KeyError as error:
        raise Unsupported(f"the grammar names a type {error} that the domain lacks") from error


def _without_task(text: str) -> tuple[str, str]:
    """The grammar with a placeholder for the task's sentence, and the sentence.

    Grammars differ in it alone and parsing is slow, so it is inserted into the cached result.
    """
    found = _PLAIN_TASK.search(text)
    if found is None or _TASK_MARK in text:
        return text, ""
    return text[: found.start(1)] + _TASK_MARK + text[found.end(1) :], found[1]


@lru_cache(maxsize=32)
def _parsed(text: str) -> tuple[dict[str, tuple[str, str]], dict[str, list[Any]]]:
    """TextWorld's parse: (template, feedback) by action, and production rules by name."""
    from textworld.envs.pddl import logic

    try:
        with exclusive():
            actions, grammar = logic._parse_and_convert(text, rule_name="pddlStart")
    # The parser raises its own and JSON's errors, among others; stock fails on such games as well.
    except Exception as error:
        raise Unsupported(f"the grammar does not parse ({type(error).__name__})") from error
    return {name: (action.template, action.feedback_rule) for name, action in actions.items()}, dict(grammar._rules)


@lru_cache(maxsize=1024)
def _symbols(text: str) -> list[Any]:
    from textworld.envs.pddl import textgen

    with exclusive():
        return list(textgen._parse_and_convert(text, rule_name="symbols"))


@lru_cache(maxsize=1024)
def _conjunction(text: str) -> tuple[tuple[str, tuple[tuple[str, str], ...]], ...]:
    from textworld.logic import Rule as TextWorldRule

    with exclusive():
        parsed = TextWorldRule.parse_conjunctive_query(text)
    return tuple((atom.name, tuple((p.name, p.type) for p in atom.parameters)) for atom in parsed.preconditions)


class _Reader:
    """Converts TextWorld's objects to plain data."""

    def __init__(self, types: tuple[tuple[str, tuple[str, ...]], ...], task: str) -> None:
        from textworld.logic import Type, TypeHierarchy

        self.task = task
        self.hierarchy = TypeHierarchy()
        for name, supertypes in types:
            if name not in {known.name for known in self.hierarchy}:  # TextWorld keeps the first of a name
                self.hierarchy.add(Type(name, list(supertypes)))

    def rule(self, rule: Any) -> Rule:
        return Rule(self.query(rule.condition) if rule.condition else None, self.symbols(rule.rhs))

    def symbols(self, symbols: list[Any]) -> list[Symbol]:
        return [self.symbol(symbol) for symbol in symbols]

    def symbol(self, symbol: Any) -> Symbol:
        kind = type(symbol).__name__
        if kind == "TerminalSymbol":
            return str(symbol.symbol).replace(_TASK_MARK, self.task)
        if kind == "NonterminalSymbol":
            return ["rule", str(symbol.symbol)]
        if kind == "EvalSymbol":
            return ["value", expression(symbol.expression)]
        if kind == "ConditionalSymbol":
            return ["each", self.symbol(symbol.expression), self.query(symbol.given) if symbol.given else None]
        if kind == "ListSymbol":
            return ["list", *self.symbol(symbol.symbol)[1:]]
        raise Unsupported(f"the grammar has a symbol of kind {kind}")

    def query(self, text: str) -> Query:
        try:
            atoms = _conjunction(text)
        except Exception as error:  # tatsu's errors have no common base; stock fails on such a query as well
            raise Unsupported(f"the grammar's condition {text!r} does not parse") from error
        return [[name, [list(p) for p in placeholders], self.signatures(placeholders)] for name, placeholders in atoms]

    def signatures(self, placeholders: tuple[tuple[str, str], ...]) -> list[list[str]]:
        wanted = [self.hierarchy.get(kind) for _, kind in placeholders]
        return [[kind.name for kind in types] for types in self.hierarchy.multi_subtypes(wanted)]


def expression(text: str) -> list[list[Any]]:
    """The alternatives of `{r.name}`, `{o.indefinite + ' ' + o.name}`, `{r.name or r.id}`, `{o}` and their like.

    Raises `Unsafe` for every other expression.
    """
    alternatives = [_sum(part, text) for part in re.split(r"\bor\b", text)]
    if any(part[1] is None for parts in alternatives for part in parts if isinstance(part, list)):
        if len(alternatives) > 1 or len(alternatives[0]) > 1:
            raise Unsafe(_PROBLEM.format(text))
        alternatives[0][0][1] = "name"  # a bare entity prints its name
    return alternatives


def _sum(text: str, whole: str) -> list[Any]:
    parts: list[Any] = []
    operand = True
    text = text.strip()
    while text:
        token = _TOKEN.match(text)
        if token is None or operand == (token["plus"] is not None):
            raise Unsafe(_PROBLEM.format(whole))
        name, attribute = token["name"], token["attribute"]
        if name is not None:
            if keyword.iskeyword(name) or name in _TAKEN or attribute not in (None, *ATTRIBUTES):
                raise Unsafe(_PROBLEM.format(whole))
            parts.append([name, attribute])
        elif token["text"] is not None:
            parts.append(token["text"])
        operand = not operand
        text = text[token.end() :].lstrip()
    if operand:
        raise Unsafe(_PROBLEM.format(whole))
    return parts

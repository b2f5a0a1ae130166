"""Parse the output of the translator (Fast Downward's SAS format, version 3) to a planning task.

Only variables with two values, a fact and its negation, are accepted, as in alfworld's translations.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from prm_gym.envs.engine.unsupported import Unsupported

Fact = tuple[str, tuple[str, ...]]  # predicate and arguments
Literal = tuple[int, bool]  # variable and whether its fact is true


@dataclass(frozen=True, slots=True)
class Effect:
    conditions: tuple[Literal, ...]
    result: Literal


@dataclass(frozen=True, slots=True)
class Operator:
    """A grounded action: its schema, arguments, preconditions and effects."""

    action: str
    arguments: tuple[str, ...]
    preconditions: tuple[Literal, ...]
    effects: tuple[Effect, ...]


@dataclass(frozen=True, slots=True)
class Axiom:
    """`head` gets its non-default value when all conditions hold."""

    conditions: tuple[Literal, ...]
    head: Literal


@dataclass(frozen=True, slots=True)
class Task:
    """`layers[v]` is -1 for a variable that operators change, else the stratum of the derived variable v."""

    facts: tuple[Fact, ...]
    layers: tuple[int, ...]
    initial: tuple[bool, ...]
    goal: tuple[Literal, ...]
    operators: tuple[Operator, ...]
    axioms: tuple[Axiom, ...]


def parse(text: str) -> Task:
    """Parse a translation. Raises `Unsupported` if a variable is not a fact and its negation."""
    lines = iter(text.splitlines())
    while next(lines) != "end_metric":
        pass
    facts, layers = [], []
    for _ in range(_number(lines)):
        fact, layer = _variable(lines)
        facts.append(fact)
        layers.append(layer)
    for _ in range(_number(lines)):
        while next(lines) != "end_mutex_group":
            pass
    _expect(lines, "begin_state")
    initial = tuple(next(lines) == "0" for _ in facts)
    _expect(lines, "end_state")
    _expect(lines, "begin_goal")
    goal = _literals(lines)
    _expect(lines, "end_goal")
    operators = tuple(_operator(lines) for _ in range(_number(lines)))
    axioms = tuple(_axiom(lines) for _ in range(_number(lines)))
    return Task(tuple(facts), tuple(layers), initial, goal, operators, axioms)


def _variable(lines: Iterator[str]) -> tuple[Fact, int]:
    _expect(lines, "begin_variable")
    name, layer, values = next(lines), int(next(lines)), _number(lines)
    told = [next(lines) for _ in range(values)]
    _expect(lines, "end_variable")
    if values != 2 or not told[0].startswith("Atom ") or told[1] != "Negated" + told[0]:
        raise Unsupported(f"variable {name} is not a fact and its negation")
    predicate, _, arguments = told[0].removeprefix("Atom ").partition("(")
    return (predicate, tuple(part for part in arguments[:-1].split(", ") if part)), layer


def _operator(lines: Iterator[str]) -> Operator:
    _expect(lines, "begin_operator")
    name = next(lines)
    if not name.isascii() or len(name) >= 1000:
        raise Unsupported("an action's name is longer than the planner library can hold")
    preconditions = list(_literals(lines))
    effects = []
    for _ in range(_number(lines)):
        count, *numbers = map(int, next(lines).split())
        variable, before, after = numbers[2 * count :]
        if before >= 0:
            preconditions.append((variable, before == 0))
        effects.append(Effect(_pairs(numbers[: 2 * count]), (variable, after == 0)))
    next(lines)  # the cost, which is not used
    _expect(lines, "end_operator")
    action, *arguments = name.split()
    return Operator(action, tuple(arguments), tuple(preconditions), tuple(effects))


def _axiom(lines: Iterator[str]) -> Axiom:
    _expect(lines, "begin_rule")
    conditions = _literals(lines)
    variable, _, after = map(int, next(lines).split())
    _expect(lines, "end_rule")
    return Axiom(conditions, (variable, after == 0))


def _literals(lines: Iterator[str]) -> tuple[Literal, ...]:
    return tuple(_pairs(list(map(int, next(lines).split())))[0] for _ in range(_number(lines)))


def _pairs(numbers: list[int]) -> tuple[Literal, ...]:
    return tuple((variable, value == 0) for variable, value in zip(numbers[::2], numbers[1::2], strict=True))


def _number(lines: Iterator[str]) -> int:
    return int(next(lines))


def _expect(lines: Iterator[str], wanted: str) -> None:
    line = next(lines)
    if line != wanted:
        raise ValueError(f"the translation says {line!r} where {wanted!r} belongs")

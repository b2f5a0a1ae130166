"""Proofs about a grounded task that make the fast path exact.

Two things are needed. The agent is in one place at a time, so that operators can be looked up by place: shown as an
invariant over groups of facts that differ in one argument. And where several operators have one command, stock carries
out the first that its planner lists, in an order that is not known here: so they must never be applicable together, or
do and say the same.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence

from prm_gym.envs.engine.sas import Literal, Operator, Task
from prm_gym.envs.engine.unsupported import Unsupported


def exclusive_group(task: Task) -> frozenset[int]:
    """The variables of which at most one is ever true that most operators depend on; empty if none is found.

    A group holds at most one true fact at the start, and every operator that adds one takes another back, which it
    requires: so it holds at most one ever.
    """
    best: frozenset[int] = frozenset()
    most = 0
    for group in _families(task):
        if sum(task.initial[variable] for variable in group) > 1:
            continue
        if not all(_keeps_exclusive(operator, group) for operator in task.operators):
            continue
        users = sum(any(true and v in group for v, true in operator.preconditions) for operator in task.operators)
        if users > most:
            best, most = group, users
    return best


def _families(task: Task) -> Iterable[frozenset[int]]:
    """Facts of one predicate that agree in all arguments but one."""
    families: dict[Hashable, set[int]] = defaultdict(set)
    for variable, (predicate, arguments) in enumerate(task.facts):
        if task.layers[variable] == -1:
            for place in range(len(arguments)):
                families[predicate, place, arguments[:place], arguments[place + 1 :]].add(variable)
    return [frozenset(family) for family in families.values() if len(family) > 1]


def _keeps_exclusive(operator: Operator, group: frozenset[int]) -> bool:
    changes = [effect for effect in operator.effects if effect.result[0] in group]
    added = [effect.result[0] for effect in changes if effect.result[1]]
    if not added:
        return True
    taken = {effect.result[0] for effect in changes if not effect.result[1] and not effect.conditions}
    required = {variable for variable, true in operator.preconditions if true}
    return len(added) == 1 and bool((taken | set(added)) & required)


def check_commands(operators: Sequence[tuple[str, Hashable, Sequence[Literal]]], exclusive: frozenset[int]) -> None:
    """Raise `Unsupported` if two operators with one command may be applicable together and differ.

    `operators` gives for each its command, what it does and says (equal for equal outcomes) and its preconditions;
    `exclusive` is a group of variables of which at most one is ever true.
    """
    together: dict[tuple[str, int | None], list[tuple[Hashable, Sequence[Literal]]]] = defaultdict(list)
    everywhere: dict[str, list[tuple[Hashable, Sequence[Literal]]]] = defaultdict(list)
    for command, outcome, preconditions in operators:
        place = next((variable for variable, true in preconditions if true and variable in exclusive), None)
        together[command, place].append((outcome, preconditions))
        if place is None:
            everywhere[command].append((outcome, preconditions))
    for (command, _place), here in together.items():
        rivals = here + everywhere[command]
        for number, (outcome, preconditions) in enumerate(here):
            for other, others in rivals[number + 1 :]:
                if other != outcome and not _contradict(dict(preconditions), others):
                    raise Unsupported(f"several actions may answer to {command!r}")


def _contradict(known: Mapping[int, bool], others: Sequence[Literal]) -> bool:
    return any(known.get(variable, true) != true for variable, true in others)

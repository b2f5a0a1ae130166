"""Proofs about a grounded task, which make the fast path exact.

First, the agent is in one place at a time, so operators can be indexed by place. This is an invariant over groups of
facts that differ in one argument. Second, if several operators have the same command, stock executes the first in its
planner's order, which is unknown here. So they must never be applicable together, or have equal effects and texts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence

from prm_gym.envs.engine.sas import Literal, Operator, Task
from prm_gym.envs.engine.unsupported import Unsupported


def exclusive_group(task: Task) -> frozenset[int]:
    """The group of variables, at most one of which is ever true, that most operators require; empty if there is none.

    By induction: a group has at most one true fact at the start, and every operator that adds one requires and deletes
    another.
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

    `operators` has for each its command, its outcome (effects and text) and its preconditions; at most one variable of
    `exclusive` is ever true.
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

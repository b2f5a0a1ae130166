"""Derived facts: they follow from other facts, layer by layer, and have a default value unless an axiom fires.

Alfworld's problems use them for goals such as "some mug is in some cabinet".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prm_gym.envs.engine.bitsets import mask, numbers
from prm_gym.envs.engine.sas import Task
from prm_gym.envs.engine.unsupported import Unsupported

Rule = tuple[int, int, int]  # head bit, mask of the conditions, their value


class Axioms:
    """The axioms of a game over states as integers.

    `defaults` are the derived variables that are true unless an axiom fires; `layers` the rules of each stratum.
    """

    def __init__(self, derived: int, defaults: int, layers: tuple[tuple[Rule, ...], ...]) -> None:
        self.derived = derived
        self.defaults = defaults
        self.layers = layers
        self._read = derived
        for layer in layers:
            for _, wanted, _ in layer:
                self._read |= wanted
        self._closed: dict[int, int] = {}

    @classmethod
    def of_task(cls, task: Task) -> Axioms:
        """The axioms of a task, in its numbering. Raises `Unsupported` unless negation is by stratum."""
        derived = mask(v for v, layer in enumerate(task.layers) if layer >= 0)
        defaults = derived & mask(v for v, true in enumerate(task.initial) if true)
        layers: dict[int, list[Rule]] = {}
        for axiom in task.axioms:
            head, becomes = axiom.head
            layer = task.layers[head]
            if layer < 0 or (becomes == task.initial[head] and not axiom.conditions):
                raise Unsupported("facts are derived from each other in a circle")
            if becomes == task.initial[head]:
                continue  # the translator also lists when a fact is not derived, which is implied
            for variable, true in axiom.conditions:
                at_default = true == task.initial[variable]
                if task.layers[variable] > layer or (task.layers[variable] == layer and at_default):
                    raise Unsupported("an axiom depends on the absence of what its own layer derives")
            wanted = mask(variable for variable, _ in axiom.conditions)
            value = mask(variable for variable, true in axiom.conditions if true)
            layers.setdefault(layer, []).append((1 << head, wanted, value))
        return cls(derived, defaults, tuple(tuple(layers[layer]) for layer in sorted(layers)))

    def close(self, state: int) -> int:
        """`state` with its derived facts recomputed by the axioms."""
        if not self.derived:
            return state
        key = state & self._read & ~self.derived
        facts = self._closed.get(key)
        if facts is None:
            facts = self._closed[key] = self._derive(key)
        return (state & ~self.derived) | facts

    def forget(self) -> None:
        """Clear the cache."""
        self._closed.clear()

    def _derive(self, state: int) -> int:
        state |= self.defaults
        for layer in self.layers:
            changed = True
            while changed:
                changed = False
                for head, wanted, value in layer:
                    if state & wanted == value and (state ^ self.defaults) & head == 0:
                        state ^= head
                        changed = True
        return state & self.derived

    def as_data(self, renumber: Mapping[int, int]) -> list[Any]:
        """Plain data in another numbering; rules whose head has no number there are left out."""

        def moved(bits: int) -> list[int]:
            return sorted(renumber[number] for number in numbers(bits) if number in renumber)

        layers = [
            sorted([*moved(head), moved(value), moved(wanted & ~value)] for head, wanted, value in layer if moved(head))
            for layer in self.layers
        ]
        return [moved(self.derived), moved(self.defaults), layers]

    @classmethod
    def from_data(cls, data: list[Any]) -> Axioms:
        """The inverse of `as_data`."""
        derived, defaults, layers = data
        rules = tuple(
            tuple((1 << head, mask(positive) | mask(negative), mask(positive)) for head, positive, negative in layer)
            for layer in layers
        )
        return cls(mask(derived), mask(defaults), rules)

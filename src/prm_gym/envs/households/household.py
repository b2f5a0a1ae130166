"""One household game: the room, the locations of its objects, and the task.

Names in the texts, such as `mug 2`, are alfworld's: numbered within a type, in the reverse order of the ids.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

from prm_gym.envs.households.catalog import LAMP
from prm_gym.envs.households.floorplans import Location, Receptacle


@dataclass(frozen=True)
class Task:
    """Bring `target` objects, treated by the task type's appliance, to a `goal` receptacle.

    For look_at_obj_in_light the goal is the lamp under which to look at the target.
    """

    type: str
    target: str
    goal: str

    @property
    def toggle(self) -> str:
        return self.goal if self.goal == LAMP else ""

    @property
    def parent(self) -> str:
        return "" if self.toggle else self.goal

    @property
    def copies(self) -> int:
        """How many target objects the goal requires."""
        return 2 if self.type == "pick_two_obj_and_place" else 1

    def fill(self, template: str, *, lower: bool = False) -> str:
        """Fill in one of alfworld's templates, a goal in PDDL or a task sentence."""
        words = {"obj": self.target, "recep": self.parent, "toggle": self.toggle}
        return template.format(**{key: word.lower() if lower else word for key, word in words.items()})


@dataclass(frozen=True)
class Thing:
    """An object. `home` is the id of its receptacle, empty for fixtures, which cannot be taken."""

    id: str
    kind: str
    location: Location
    home: str


@dataclass(frozen=True)
class Game:
    trial: str  # `trial_T...`, the name of the game's folder
    floor_plan: int
    task: Task
    sentence: str  # the task in words
    start: Location  # out of reach of all receptacles
    receptacles: tuple[Receptacle, ...]
    things: tuple[Thing, ...]

    @property
    def folder(self) -> str:
        """`task_type-Object-Mrecep-Receptacle-FloorPlan/trial`, as alfworld names it (no movable receptacle here)."""
        return f"{self.task.type}-{self.task.target}-None-{self.task.goal}-{self.floor_plan}/{self.trial}"

    @cached_property
    def names(self) -> dict[str, str]:
        """Simulator id -> the name in the texts."""
        ids = [place.id for place in self.receptacles] + [thing.id for thing in self.things]
        symbols = {id_: mangle(id_).lower() for id_ in ids}
        counts = Counter(_word(symbol) for symbol in symbols.values())
        names = {}
        for id_, symbol in sorted(symbols.items(), key=lambda item: item[1]):
            word = _word(symbol)
            names[id_] = f"{word} {counts[word]}"
            counts[word] -= 1
        return names

    @property
    def text_key(self) -> bytes:
        """Equal for games with the same task and the same objects in the same places, by their names in the texts."""
        places = sorted(self.names[place.id] for place in self.receptacles)
        things = sorted((self.names[thing.id], self.names.get(thing.home, "")) for thing in self.things)
        return blake2b(repr((self.sentence, places, things)).encode(), digest_size=16).digest()


_SPELLING = {"-": "_minus_", "#": "-", "|": "_bar_", "+": "_plus_", ".": "_dot_", ",": "_comma_"}


def mangle(text: str) -> str:
    """alfworld's spelling of simulator ids as PDDL symbols; `#` stands for the hyphen of a typed PDDL list."""
    return re.sub(r"[-#|+.,]", lambda match: _SPELLING[match.group()], text)


def _word(symbol: str) -> str:
    """The type of a symbol in the texts; basins are counted apart from their sinks and bathtubs."""
    return symbol.split("_bar_", 1)[0] + ("basin" if "basin" in symbol else "")

"""Draw a household game: a task that is possible in the room, receptacles, and objects in them.

Every game can be solved, and is not solved at the start. The target has to be searched for: the agent starts out of
reach of all receptacles, and no target starts in a receptacle of the goal's type.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from functools import cache

from prm_gym.envs.households.catalog import APPLIANCES, LAMP, Catalog, catalog
from prm_gym.envs.households.floorplans import FloorPlan, Receptacle, floor_plan, spot_id
from prm_gym.envs.households.household import Game, Task, Thing

_LAMP_STANDS = frozenset({"Desk", "SideTable", "Dresser", "DiningTable", "CoffeeTable"})
_CLOSED_WEIGHT = 0.5  # weight of closed types of receptacles for an object, relative to open ones


@dataclass(frozen=True)
class Preset:
    """The size of a household. Ranges include both ends."""

    receptacles: tuple[int, int] | None  # None: all of the floor plan
    objects: tuple[int, int]  # lamp, targets and, where `fixtures`, fixtures included
    copies: int  # most objects of one type
    fixtures: bool  # windows, chairs, light switches and other objects that cannot be taken


PRESETS = {
    "small": Preset(receptacles=(6, 8), objects=(4, 6), copies=1, fixtures=False),
    "full": Preset(receptacles=None, objects=(25, 55), copies=3, fixtures=True),
}


@cache
def tasks(number: int, task_type: str) -> tuple[Task, ...]:
    """All tasks of a type that are possible in a floor plan, in a fixed order."""
    tables, plan = catalog(), floor_plan(number)
    present = {place.kind for place in plan.receptacles}
    targets, goals = tables.portable & plan.kinds, set(present)
    if plan.room not in tables.rooms[task_type]:
        return ()
    if task_type in APPLIANCES:
        appliance, ability = APPLIANCES[task_type]
        if appliance not in present:
            return ()
        targets &= tables.abilities[ability]
        goals -= {appliance}
    if task_type == "look_at_obj_in_light":
        goals = {LAMP} if LAMP in plan.kinds and present & _LAMP_STANDS else set()
    return tuple(
        Task(task_type, target, goal)
        for target in sorted(targets)
        for goal in sorted(goals)
        if goal == LAMP or target in tables.can_contain.get(goal, ())
        if len(_homes(tables, plan.receptacles, target, goal)) >= 2
    )


def draw_game(preset: Preset, number: int, task: Task, trial: str, rng: random.Random) -> Game:
    """Draw a game of `task` in floor plan `number` with `rng`."""
    tables, plan = catalog(), floor_plan(number)
    places = plan.receptacles
    if preset.receptacles is not None:
        places = _some_receptacles(tables, plan, task, rng.randint(*preset.receptacles), rng)
    room = _Furnisher(tables, plan, places, rng)
    if task.toggle:
        room.put(LAMP, rng.choice([place.id for place in places if place.kind in _LAMP_STANDS]))
    size = rng.randint(*preset.objects)
    for _ in range(max(task.copies, rng.randint(1, preset.copies))):
        room.put_somewhere(task.target, avoid=task.goal)
    if preset.fixtures:
        for kind in sorted(plan.kinds - tables.portable - {LAMP}):
            room.fix(kind)
    for kind in _distractors(tables, plan, places, task.target, preset.copies, rng):
        if len(room.things) >= size:
            break
        room.put_somewhere(kind)
    return Game(
        trial=trial,
        floor_plan=number,
        task=task,
        sentence=task.fill(rng.choice(tables.sentences[task.type]), lower=True),
        start=rng.choice(plan.free),
        receptacles=places,
        things=tuple(sorted(room.things, key=lambda thing: thing.id)),
    )


def _homes(tables: Catalog, places: tuple[Receptacle, ...], target: str, goal: str) -> list[Receptacle]:
    """The receptacles in which a target may start."""
    return [place for place in places if place.kind != goal and target in tables.can_contain.get(place.kind, ())]


def _some_receptacles(
    tables: Catalog, plan: FloorPlan, task: Task, size: int, rng: random.Random
) -> tuple[Receptacle, ...]:
    """The receptacles of a small room: those the task needs, two homes for the target, others up to three per type."""
    shuffled = rng.sample(plan.receptacles, len(plan.receptacles))
    chosen: list[Receptacle] = []
    if task.type in APPLIANCES:
        chosen.append(next(place for place in shuffled if place.kind == APPLIANCES[task.type][0]))
    stands = _LAMP_STANDS if task.toggle else frozenset({task.goal})
    chosen.append(next(place for place in shuffled if place.kind in stands))
    homes = _homes(tables, tuple(shuffled), task.target, task.goal)
    known = sum(place in homes for place in chosen)
    chosen += [place for place in homes if place not in chosen][: max(0, 2 - known)]
    counts = Counter(place.kind for place in chosen)
    for place in shuffled:
        if len(chosen) == size:
            break
        if place not in chosen and counts[place.kind] < 3:
            chosen.append(place)
            counts[place.kind] += 1
    return tuple(sorted(chosen, key=lambda place: place.id))


def _distractors(
    tables: Catalog, plan: FloorPlan, places: tuple[Receptacle, ...], target: str, copies: int, rng: random.Random
) -> list[str]:
    """Types of further objects in random order, each type `copies` times."""
    holdable: frozenset[str] = frozenset().union(*(tables.can_contain.get(place.kind, ()) for place in places))
    kinds = sorted((tables.portable & plan.kinds & holdable) - {target}) * copies
    return rng.sample(kinds, len(kinds))


class _Furnisher:
    """Puts objects into a room, no two at the same position."""

    def __init__(self, tables: Catalog, plan: FloorPlan, places: tuple[Receptacle, ...], rng: random.Random) -> None:
        self.things: list[Thing] = []
        self._tables, self._plan = tables, plan
        self._places = {place.id: place for place in places}
        self._rng = rng
        self._ids: set[str] = set()

    def put(self, kind: str, home: str) -> None:
        """Put an object into the receptacle with the id `home`."""
        place = self._places[home]
        x, y, z = (float(part) for part in home.split("|")[1:4])
        self.things.append(Thing(self._id(kind, x, y, z), kind, place.location, home))

    def put_somewhere(self, kind: str, *, avoid: str = "") -> None:
        """Put an object into a suitable receptacle. The type is drawn first, or cabinets would get most objects."""
        by_kind: dict[str, list[str]] = {}
        for place in self._places.values():
            if kind in self._tables.can_contain.get(place.kind, ()) and place.kind != avoid:
                by_kind.setdefault(place.kind, []).append(place.id)
        kinds = sorted(by_kind)
        weights = [_CLOSED_WEIGHT if name in self._tables.openable else 1.0 for name in kinds]
        self.put(kind, self._rng.choice(by_kind[self._rng.choices(kinds, weights)[0]]))

    def fix(self, kind: str) -> None:
        """Add a fixture, which is in no receptacle and cannot be taken."""
        spot = self._rng.choice(self._plan.free)
        self.things.append(Thing(self._id(kind, spot[0] / 4, 1.0, spot[1] / 4), kind, spot, ""))

    def _id(self, kind: str, x: float, y: float, z: float) -> str:
        while True:
            near = [value + self._rng.uniform(-0.4, 0.4) for value in (x, y, z)]
            name = spot_id(kind, *near)
            if name not in self._ids:
                self._ids.add(name)
                return name

"""Floor plans: the receptacles of a room and the locations from which the agent uses them.

For each of its 120 floor plans alfworld ships the object and receptacle types of the room, the walkable cells and, for
most receptacles, the cell to use them from. Types without a position (stove burners, the coffee machine, the toilet
paper hanger...) are placed at free cells by a fixed rule. A room with fewer receptacles than real games gets more
drawers, cabinets or shelves. A floor plan depends on its number alone.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np

from prm_gym.envs.households.catalog import Catalog, catalog
from prm_gym.errors import UserError

Location = tuple[int, int, int, int]  # x and z in quarter metres, rotation in quarter turns, horizon in degrees

_FEWEST, _MOST = 16, 35  # receptacles in a room
_STEP = 0.25  # metres to a grid cell
_PADDING = {
    "Kitchen": ("Drawer", "Cabinet"),
    "LivingRoom": ("Drawer", "Shelf"),
    "Bedroom": ("Drawer", "Shelf"),
    "Bathroom": ("Cabinet", "Shelf"),
}


@dataclass(frozen=True)
class Receptacle:
    id: str  # as the simulator writes it, `Cabinet|+00.68|+00.50|-02.20`
    kind: str
    location: Location


@dataclass(frozen=True)
class FloorPlan:
    """One room. `free` are locations out of reach of all receptacles; `kinds` are the object types in the room."""

    number: int
    room: str
    receptacles: tuple[Receptacle, ...]
    free: tuple[Location, ...]
    kinds: frozenset[str]


@cache
def floor_plan(number: int) -> FloorPlan:
    """The floor plan `number` (kitchens 1-30, living rooms 201-230, bedrooms 301-330, bathrooms 401-430).

    Raises `UserError` if the installed alfworld lacks its files.
    """
    tables = catalog()
    room = next(room for room, numbers in tables.scenes.items() if number in numbers)
    folder, name = tables.folder / "gen" / "layouts", f"FloorPlan{number}"
    try:
        kinds = frozenset(json.loads((folder / f"{name}-objects.json").read_text(encoding="utf-8")))
        known = json.loads((folder / f"{name}-openable.json").read_text(encoding="utf-8"))
        cells = np.load(folder / f"{name}-layout.npy", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(
            folder / name, f"cannot be read ({error})", "run: pip install --force-reinstall alfworld"
        ) from error
    places = [_receptacle(name, position) for name, position in sorted(known.items())]
    places = _trim([place for place in places if place.kind in tables.receptacles])
    rng = random.Random(f"floor plan {number}")
    points = sorted({(round(x / _STEP), round(z / _STEP)) for x, z in cells.tolist()})
    rng.shuffle(points)
    # Two added receptacles share each cell, as stacked drawers and stove burners do in alfworld.
    for index, kind in enumerate(_missing(tables, room, kinds, places)):
        x, z = points[index // 2 % len(points)]
        location = (x, z, index // 2 % 4, 30)
        places.append(Receptacle(_beside(kind, location, rng, {place.id for place in places}), kind, location))

    used = {place.location for place in places}
    return FloorPlan(
        number=number,
        room=room,
        receptacles=tuple(sorted(places, key=lambda place: place.id)),
        free=tuple(spot for x, z in sorted(points) if (spot := (x, z, 0, 30)) not in used),
        kinds=kinds & tables.objects,
    )


def spot_id(kind: str, x: float, y: float, z: float) -> str:
    """The simulator's id of an object or receptacle at a position in metres."""
    return f"{kind}|{x:+06.2f}|{y:+06.2f}|{z:+06.2f}"


def _receptacle(name: str, position: list[float]) -> Receptacle:
    x, z, rotation, horizon = position
    first, last = name.split("|")[0], name.split("|")[-1]
    location = (round(x / _STEP), round(z / _STEP), round(rotation / 90) % 4, round(horizon))
    return Receptacle(name, last if last.endswith("Basin") else first, location)


def _trim(places: list[Receptacle]) -> list[Receptacle]:
    """Drop surplus drawers and cabinets (some kitchens have over forty), with room for receptacles to add."""
    surplus = max(0, len(places) - (_MOST - 8))
    storage = [place for place in places if place.kind in ("Cabinet", "Drawer")]
    dropped = storage[len(storage) - surplus :]
    return [place for place in places if place not in dropped]


def _missing(tables: Catalog, room: str, kinds: Iterable[str], places: list[Receptacle]) -> list[str]:
    """The types of receptacles to add: listed ones without a position, then storage up to _FEWEST."""
    present = {place.kind for place in places}
    added: list[str] = []
    for kind in sorted(set(kinds) & tables.receptacles - present):
        added += [kind] * (4 if kind == "StoveBurner" else 1)
    while len(places) + len(added) < _FEWEST or len(added) < 2:
        added.append(_PADDING[room][len(added) // 2 % 2])
    return added


def _beside(kind: str, location: Location, rng: random.Random, taken: set[str]) -> str:
    x, z = location[0] * _STEP, location[1] * _STEP
    while True:
        name = spot_id(kind, x + rng.uniform(-0.6, 0.6), rng.uniform(0.1, 1.6), z + rng.uniform(-0.6, 0.6))
        if kind.endswith("Basin"):
            name = f"{kind.removesuffix('Basin')}{name[len(kind) :]}|{kind}"
        if name not in taken:
            return name

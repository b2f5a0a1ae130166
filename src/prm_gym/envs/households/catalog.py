"""The tables of the installed alfworld package: domain, grammar, object types and goals.

They are read from alfworld's own files (`gen/constants.py`, `gen/goal_library.py`, `data/alfred.*`), loaded by path,
because importing `alfworld` creates a folder in the user's home. Sets are sorted before iteration, so generated games
do not depend on PYTHONHASHSEED. `floorplans` reads the floor plans.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

from prm_gym.envs.games import TASK_TYPES
from prm_gym.errors import UserError

# The receptacle that treats an object before it is placed, and the ability that the object needs.
APPLIANCES = {
    "pick_clean_then_place_in_recep": ("SinkBasin", "Cleanable"),
    "pick_heat_then_place_in_recep": ("Microwave", "Heatable"),
    "pick_cool_then_place_in_recep": ("Fridge", "Coolable"),
}
# Only desk lamps: the goal of look_at_obj_in_light needs a receptacle, and a floor lamp is in none.
LAMP = "DeskLamp"


@dataclass(frozen=True)
class Catalog:
    """The tables of one installed alfworld, by object and receptacle type name (`Mug`, `CoffeeMachine`)."""

    version: str
    folder: Path  # the installed package
    domain: str  # PDDL text of alfred.pddl
    grammar: str  # twl2 text, the task sentence still "UNKNOWN GOAL"
    can_contain: Mapping[str, frozenset[str]]  # fixed receptacle type -> object types, none of them sliced
    abilities: Mapping[str, frozenset[str]]  # Cleanable, Heatable, Coolable, Sliceable, Toggleable -> object types
    receptacles: frozenset[str]  # types that stay where they are
    vessels: frozenset[str]  # movable receptacles, which the game treats as objects
    openable: frozenset[str]  # receptacle types that start closed
    portable: frozenset[str]  # object types that fit into some receptacle and can be picked up
    objects: frozenset[str]  # every object type of the game, fixtures included
    rooms: Mapping[str, tuple[str, ...]]  # task type -> rooms that alfworld allows for it
    scenes: Mapping[str, range]  # room -> floor plan numbers
    unseen_scenes: frozenset[int]  # alfworld's own test floor plans
    goals: Mapping[str, str]  # task type -> goal PDDL with {obj}, {recep}, {toggle}
    sentences: Mapping[str, tuple[str, ...]]  # task type -> task sentences with the same fields


@cache
def catalog() -> Catalog:
    """The tables of the installed alfworld. Raises `UserError` if it is missing or of an unknown version."""
    spec = importlib.util.find_spec("alfworld")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("alfworld", "is not installed", "run: pip install 'prm-gym[alfworld]'")
    folder = Path(next(iter(spec.submodule_search_locations)))
    try:
        return _read(folder)
    except (OSError, AttributeError, KeyError) as error:
        raise UserError(
            folder, f"lacks the tables expected of alfworld 0.4 ({error!r})", "run: pip install 'alfworld>=0.4.2'"
        ) from error


def _read(folder: Path) -> Catalog:
    constants = _module(folder / "gen" / "constants.py")
    library = _module(folder / "gen" / "goal_library.py").gdict
    vessels = frozenset(constants.MOVABLE_RECEPTACLES)
    receptacles = frozenset(constants.RECEPTACLES) - vessels
    objects = frozenset(constants.OBJECTS_SET) - receptacles
    can_contain = {
        kind: frozenset(contents) & objects
        for kind, contents in constants.VAL_RECEPTACLE_OBJECTS.items()
        if kind in receptacles
    }
    return Catalog(
        version=importlib.metadata.version("alfworld"),
        folder=folder,
        domain=(folder / "data" / "alfred.pddl").read_text(encoding="utf-8"),
        grammar=(folder / "data" / "alfred.twl2").read_text(encoding="utf-8"),
        can_contain=can_contain,
        abilities={name: frozenset(kinds) & objects for name, kinds in constants.VAL_ACTION_OBJECTS.items()},
        receptacles=receptacles,
        vessels=vessels,
        openable=frozenset(constants.OPENABLE_CLASS_LIST) & receptacles,
        portable=frozenset().union(*can_contain.values()),
        objects=objects,
        rooms={task: tuple(sorted(constants.GOALS_VALID[task])) for task in TASK_TYPES},
        scenes=constants.SCENE_TYPE,
        unseen_scenes=frozenset(constants.TEST_SCENE_NUMBERS),
        goals={task: library[task]["pddl"] for task in TASK_TYPES},
        sentences={task: tuple(library[task]["templates"]) for task in TASK_TYPES},
    )


def _module(path: Path) -> ModuleType:
    """Load one self-contained module of the installed package without importing the package."""
    spec = importlib.util.spec_from_file_location(f"prm_gym_alfworld_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

"""A tiny hand-written kitchen with rare features: a shared place, a knife, two closed cabinets.

`write_kitchen` takes a changed grammar or problem, for games that the exact engine must refuse.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

# receptacle: (type, place, whether it opens)
RECEPTACLES = {
    "countertop_bar_1": ("countertoptype", "l1", False),
    "sink_bar_1_bar_sinkbasin": ("sinkbasintype", "l1", False),
    "fridge_bar_1": ("fridgetype", "l2", True),
    "microwave_bar_1": ("microwavetype", "l3", True),
    "desk_bar_1": ("desktype", "l4", False),
    "cabinet_bar_1": ("cabinettype", "l5", True),
    "cabinet_bar_2": ("cabinettype", "l5", True),
}
# object: (type, where it is)
OBJECTS = {
    # alfworld counts backwards: these are mug 2 on the desk, and mug 1 in cabinet 1
    "mug_bar_1": ("mugtype", "desk_bar_1"),
    "mug_bar_2": ("mugtype", "cabinet_bar_2"),
    "apple_bar_1": ("appletype", "countertop_bar_1"),
    "butterknife_bar_1": ("butterknifetype", "countertop_bar_1"),
    "desklamp_bar_1": ("desklamptype", "desk_bar_1"),
    "potato_bar_1": ("potatotype", "fridge_bar_1"),
}
ABILITIES = {
    "mugtype": ("pickupable", "cleanable", "heatable", "coolable"),
    "appletype": ("pickupable", "cleanable", "heatable", "coolable", "sliceable"),
    "potatotype": ("pickupable", "cleanable", "heatable", "coolable", "sliceable"),
    "butterknifetype": ("pickupable", "cleanable"),
    "desklamptype": ("toggleable",),
}
GOAL = (
    "(exists (?r - receptacle) (exists (?o - object) (and (isClean ?o) (objectType ?o mugtype)"
    " (receptacleType ?r countertoptype) (inReceptacle ?o ?r))))"
)

WINNING = (
    "go to desk 1",
    "take mug 2 from desk 1",
    "go to sinkbasin 1",
    "clean mug 2 with sinkbasin 1",
    "move mug 2 to countertop 1",
)


def write_kitchen(
    folder: Path,
    grammar: Callable[[str], str] = lambda text: text,
    problem: Callable[[str], str] = lambda text: text,
    domain: Callable[[str], str] = lambda text: text,
) -> Path:
    """Write the game's file below `folder`, its texts changed by the given functions."""
    data = files("alfworld") / "data"
    spoken = (data / "alfred.twl2").read_text().replace("UNKNOWN GOAL", "put a clean mug in countertop")
    path = folder / "train" / "pick_clean_then_place_in_recep-Mug-None-CounterTop-1" / "trial_T1" / "game.tw-pddl"
    path.parent.mkdir(parents=True)
    told = {
        "pddl_domain": domain((data / "alfred.pddl").read_text()),
        "grammar": grammar(spoken),
        "pddl_problem": problem(_problem()),
        "solvable": True,
    }
    path.write_text(json.dumps(told))
    return path


def _problem() -> str:
    places = ["l0", *sorted({place for _, place, _ in RECEPTACLES.values()})]
    receptacle_types = sorted({kind for kind, _, _ in RECEPTACLES.values()})
    object_types = sorted(ABILITIES)
    declared = ["agent1 - agent"]
    declared += [f"{place} - location" for place in places]
    declared += [f"{name} - receptacle" for name in RECEPTACLES] + [f"{name} - object" for name in OBJECTS]
    declared += [f"{kind} - rtype" for kind in receptacle_types] + [f"{kind} - otype" for kind in object_types]
    facts = ["(= (total-cost) 0)", "(atLocation agent1 l0)"]
    for name, (kind, place, opens) in RECEPTACLES.items():
        facts += [f"(receptacleType {name} {kind})", f"(receptacleAtLocation {name} {place})"]
        facts += [f"(openable {name})"] * opens
    for name, (kind, where) in OBJECTS.items():
        facts += [f"(objectType {name} {kind})", f"(inReceptacle {name} {where})"]
        facts += [f"(objectAtLocation {name} {RECEPTACLES[where][1]})"]
        facts += [f"({ability} {name})" for ability in ABILITIES[kind]]
    small = [kind for kind in object_types if kind != "desklamptype"]
    facts += [f"(canContain {holder} {held})" for holder in receptacle_types for held in small]
    return (
        "(define (problem kitchen) (:domain alfred)\n"
        f"(:objects {' '.join(declared)})\n(:init {' '.join(facts)})\n(:goal (and {GOAL}))\n"
        "(:metric minimize (total-cost)))\n"
    )

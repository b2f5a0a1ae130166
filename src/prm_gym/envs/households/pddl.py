"""A game as alfworld's files: the PDDL problem and `traj_data.json`.

The problem has the predicates, types and goal of alfworld's generator, and lists the types in the game. Left out: the
distances between locations, which no action of the domain reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prm_gym.envs.households.catalog import Catalog
from prm_gym.envs.households.floorplans import Location
from prm_gym.envs.households.household import Game, mangle

_ABILITIES = {"cleanable": "Cleanable", "heatable": "Heatable", "coolable": "Coolable", "sliceable": "Sliceable"}


def problem(tables: Catalog, game: Game) -> str:
    """The PDDL problem of the game."""
    kinds = sorted({thing.kind for thing in game.things})
    places = sorted({place.kind for place in game.receptacles})
    locations = {place.location for place in game.receptacles} | {thing.location for thing in game.things}
    objects = [
        "agent1 # agent",
        *(f"{kind} # object" for kind in kinds),
        *(f"{kind}Type # otype" for kind in kinds),
        *(f"{kind}Type # rtype" for kind in places),
        *(f"{thing.id} # object" for thing in game.things),
        *(f"{place.id} # receptacle" for place in game.receptacles),
        *(f"{_location(spot)} # location" for spot in sorted(locations | {game.start})),
    ]
    text = (
        f"(define (problem plan_{game.trial})\n    (:domain alfred)\n"
        "    (:objects\n" + _lines(objects) + "    )\n"
        "    (:init\n" + _lines(f"({fact})" for fact in facts(tables, game)) + "    )\n"
    )
    return mangle(text + game.task.fill(tables.goals[game.task.type]))


def facts(tables: Catalog, game: Game) -> Iterator[str]:
    """The initial state, by simulator ids."""
    target = game.task.target
    kinds = sorted({thing.kind for thing in game.things})
    for place in game.receptacles:
        yield f"receptacleType {place.id} {place.kind}Type"
    for thing in game.things:
        yield f"objectType {thing.id} {thing.kind}Type"
    for place_kind in sorted({place.kind for place in game.receptacles}):
        for kind in kinds:
            if kind in tables.can_contain.get(place_kind, ()):
                yield f"canContain {place_kind}Type {kind}Type"
    for thing in game.things:
        if thing.kind in tables.vessels:
            yield f"isReceptacleObject {thing.id}"
        if thing.kind in tables.portable:
            yield f"pickupable {thing.id}"
        for predicate, ability in _ABILITIES.items():
            if thing.kind in tables.abilities[ability]:
                yield f"{predicate} {thing.id}"
        if thing.kind == game.task.toggle:
            yield f"toggleable {thing.id}"
    yield f"atLocation agent1 {_location(game.start)}"
    for place in game.receptacles:
        yield f"receptacleAtLocation {place.id} {_location(place.location)}"
        if place.kind in tables.openable:
            yield f"openable {place.id}"
    fridges = {place.id for place in game.receptacles if place.kind == "Fridge"}
    for thing in game.things:
        yield f"objectAtLocation {thing.id} {_location(thing.location)}"
        if thing.home:
            yield f"inReceptacle {thing.id} {thing.home}"
            if thing.kind == target:
                yield f"wasInReceptacle {thing.id} {thing.home}"
                if thing.home in fridges:  # alfworld's rule: a target in a fridge is cool
                    yield f"isCool {thing.id}"


def trajectory(game: Game) -> dict[str, Any]:
    """`traj_data.json` with the fields that alfworld reads, for a game without annotations."""
    task = game.task
    return {
        "task_id": game.trial,
        "task_type": task.type,
        "pddl_params": {
            "object_target": task.target,
            "parent_target": task.parent,
            "toggle_target": task.toggle,
            "mrecep_target": "",
            "object_sliced": False,
        },
        "scene": {
            "floor_plan": f"FloorPlan{game.floor_plan}",
            "scene_num": game.floor_plan,
            "object_poses": [],
            "object_toggles": [],
            "dirty_and_empty": False,
        },
        "plan": {"high_pddl": [], "low_actions": []},
        "turk_annotations": {"anns": [{"task_desc": game.sentence, "high_descs": []}]},
    }


def _location(spot: Location) -> str:
    return "loc|{}|{}|{}|{}".format(*spot)


def _lines(entries: Iterator[str] | list[str]) -> str:
    return "".join(f"        {entry}\n" for entry in entries)

"""A plan that wins a game, and the proof that it does.

`walkthrough` writes the commands with full knowledge of the room. `check` executes them in a small model of the domain.
It fails if the goal holds before the first command, if a command is not admissible, or if the plan does not reach the
goal. The model covers the actions of plans (go, open, take, move, clean, heat, cool, use).
"""

from __future__ import annotations

from prm_gym.envs.households.catalog import APPLIANCES, Catalog
from prm_gym.envs.households.floorplans import Location
from prm_gym.envs.households.household import Game

# The verb of a task type (pick_heat_then_place...) -> the appliance and the ability it needs.
_TREATMENTS = {task_type.split("_")[1]: needs for task_type, needs in APPLIANCES.items()}
_OPPOSITE = {"heat": "cool", "cool": "heat"}


class NotSolvableError(Exception):
    """The commands are not a plan for the game; a bug of the generator."""


def walkthrough(tables: Catalog, game: Game) -> list[str]:
    """Admissible commands that win the game."""
    task, names = game.task, game.names
    places = {place.id: place for place in game.receptacles}
    first = {place.kind: place.id for place in reversed(game.receptacles)}  # type -> one receptacle
    lamp = next((thing for thing in game.things if thing.kind == task.toggle), None)
    commands: list[str] = []
    opened: set[str] = set()
    here = game.start

    def go(place: str) -> None:
        nonlocal here
        if places[place].location != here:  # going to the current location is not admissible
            here = places[place].location
            commands.append(f"go to {names[place]}")

    def reach_into(place: str) -> None:
        go(place)
        if places[place].kind in tables.openable and place not in opened:
            opened.add(place)
            commands.append(f"open {names[place]}")

    for target in [thing for thing in game.things if thing.kind == task.target][: task.copies]:
        reach_into(target.home)
        commands.append(f"take {names[target.id]} from {names[target.home]}")
        if task.type in APPLIANCES:
            appliance = first[APPLIANCES[task.type][0]]
            go(appliance)
            commands.append(f"{task.type.split('_')[1]} {names[target.id]} with {names[appliance]}")
        if lamp is not None:
            go(lamp.home)
            commands.append(f"use {names[lamp.id]}")
        else:
            reach_into(first[task.goal])
            commands.append(f"move {names[target.id]} to {names[first[task.goal]]}")
    return commands


def check(tables: Catalog, game: Game, commands: list[str]) -> None:
    """Raise `NotSolvableError` unless the game is unsolved at first, and `commands` are admissible and win it."""
    room = _Room(tables, game)
    if room.won():
        raise NotSolvableError(f"{game.folder}: solved before the first command")
    for command in commands:
        if not room.do(command):
            raise NotSolvableError(f"{game.folder}: {command!r} is not admissible")
    if not room.won():
        raise NotSolvableError(f"{game.folder}: the plan does not reach the goal: {commands}")


class _Room:
    """The part of a game's state that plans change, by the names in the texts."""

    def __init__(self, tables: Catalog, game: Game) -> None:
        names = game.names
        self._tables, self._task = tables, game.task
        self._place_kind = {names[place.id]: place.kind for place in game.receptacles}
        self._location = {names[place.id]: place.location for place in game.receptacles}
        self._kind = {names[thing.id]: thing.kind for thing in game.things}
        self._home = {names[thing.id]: names.get(thing.home, "") for thing in game.things}
        self._here: Location = game.start
        self._held = ""
        self._opened: set[str] = set()
        self._used: set[str] = set()
        self._treated = {  # (verb, object)
            ("cool", thing)
            for thing, place in self._home.items()
            if self._kind[thing] == game.task.target and self._place_kind.get(place) == "Fridge"
        }

    def do(self, command: str) -> bool:
        """Execute a command; False if it is not admissible."""
        match command.split():
            case ["go", "to", word, number]:
                return self._go(f"{word} {number}")
            case ["open", word, number]:
                return self._open(f"{word} {number}")
            case ["take", word, number, "from", place_word, place_number]:
                return self._take(f"{word} {number}", f"{place_word} {place_number}")
            case ["move", word, number, "to", place_word, place_number]:
                return self._move(f"{word} {number}", f"{place_word} {place_number}")
            case ["clean" | "heat" | "cool" as verb, word, number, "with", place_word, place_number]:
                return self._treat(verb, f"{word} {number}", f"{place_word} {place_number}")
            case ["use", word, number]:
                return self._use(f"{word} {number}")
        return False

    def won(self) -> bool:
        """The goal of the task type, as goal_library states it."""
        task = self._task
        targets = [thing for thing, kind in self._kind.items() if kind == task.target]
        if task.toggle:
            return self._held in targets and any(self._near(self._home[lamp]) for lamp in self._used)
        if task.type in APPLIANCES:
            targets = [thing for thing in targets if (task.type.split("_")[1], thing) in self._treated]
        homes = [self._home[thing] for thing in targets]
        return any(homes.count(place) >= task.copies for place, kind in self._place_kind.items() if kind == task.goal)

    def _go(self, place: str) -> bool:
        if place not in self._location or self._near(place):
            return False
        self._here = self._location[place]
        return True

    def _open(self, place: str) -> bool:
        if not self._near(place) or self._within_reach(place):
            return False
        self._opened.add(place)
        return True

    def _take(self, thing: str, place: str) -> bool:
        portable = self._kind.get(thing) in self._tables.portable
        if self._held or not portable or self._home[thing] != place or not self._within_reach(place):
            return False
        self._held, self._home[thing] = thing, ""
        return True

    def _move(self, thing: str, place: str) -> bool:
        if not self._holds(thing) or not self._within_reach(place):
            return False
        if self._kind[thing] not in self._tables.can_contain.get(self._place_kind[place], ()):
            return False
        self._held, self._home[thing] = "", place
        return True

    def _treat(self, verb: str, thing: str, place: str) -> bool:
        appliance, ability = _TREATMENTS[verb]
        if not self._holds(thing) or not self._near(place) or self._place_kind[place] != appliance:
            return False
        if self._kind[thing] not in self._tables.abilities[ability]:
            return False
        self._treated.add((verb, thing))
        self._treated.discard((_OPPOSITE.get(verb, ""), thing))
        return True

    def _use(self, thing: str) -> bool:
        toggle = self._task.toggle
        if not toggle or self._kind.get(thing) != toggle or not self._near(self._home[thing]):
            return False
        self._used.add(thing)
        return True

    def _holds(self, thing: str) -> bool:
        return bool(self._held) and self._held == thing

    def _near(self, place: str) -> bool:
        return self._location.get(place) == self._here

    def _within_reach(self, place: str) -> bool:
        """Near, and not a closed receptacle."""
        return self._near(place) and (self._place_kind[place] not in self._tables.openable or place in self._opened)

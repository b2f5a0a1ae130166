"""A plan for a game, and the check that it is one.

`walkthrough` writes the commands of someone who knows where everything is; `check` carries them out in a small model
of the domain's actions (agent, openings, contents, treatments) and fails on the first command that the game would not
accept, and on a plan that does not reach the goal, or on a goal that holds before the first command. The model covers
the actions that plans need (go, open, take, move, clean, heat, cool, use); what it says is tested against alfworld.
"""

from __future__ import annotations

from prm_gym.envs.households.catalog import APPLIANCES, Catalog
from prm_gym.envs.households.floorplans import Location
from prm_gym.envs.households.game import Game, Thing

# The verb of a task type (pick_heat_then_place...) -> the appliance and the ability it needs.
_TREATMENTS = {task_type.split("_")[1]: needs for task_type, needs in APPLIANCES.items()}


class NotSolvableError(Exception):
    """The commands are not a plan for the game: a fault of the generator, never of its input."""


def walkthrough(tables: Catalog, game: Game) -> list[str]:
    """Admissible commands that win the game, knowing where everything is."""
    task = game.task
    names = game.names
    kinds = {place.id: place.kind for place in game.receptacles}
    spots = {place.id: place.location for place in game.receptacles}
    targets = [thing for thing in game.things if thing.kind == task.target][: task.copies]
    goal = next(
        thing.home if task.toggle else place.id
        for thing in game.things
        for place in game.receptacles
        if (thing.kind == task.toggle if task.toggle else place.kind == task.goal)
    )
    opened: set[str] = set()
    commands: list[str] = []
    here = game.start

    def go(place: str, *, reach_in: bool = True) -> None:
        nonlocal here
        if spots[place] != here:  # nobody can go where they are
            here = spots[place]
            commands.append(f"go to {names[place]}")
        if reach_in and kinds[place] in tables.openable and place not in opened:
            opened.add(place)
            commands.append(f"open {names[place]}")

    for target in targets:
        go(target.home)
        commands.append(f"take {names[target.id]} from {names[target.home]}")
        if task.type in APPLIANCES:
            verb = task.type.split("_")[1]
            appliance = next(place for place, kind in kinds.items() if kind == APPLIANCES[task.type][0])
            go(appliance, reach_in=False)
            commands.append(f"{verb} {names[target.id]} with {names[appliance]}")
        go(goal, reach_in=not task.toggle)
        if task.toggle:
            lamp = next(thing.id for thing in game.things if thing.kind == task.toggle)
            commands.append(f"use {names[lamp]}")
        else:
            commands.append(f"move {names[target.id]} to {names[goal]}")
    return commands


def check(tables: Catalog, game: Game, commands: list[str]) -> None:
    """Raises NotSolvableError unless the game is unsolved at first and `commands` are admissible and win it."""
    room = _Room(tables, game)
    if room.won():
        raise NotSolvableError(f"{game.folder}: solved before the first command")
    for command in commands:
        if not room.do(command):
            raise NotSolvableError(f"{game.folder}: {command!r} is not admissible")
    if not room.won():
        raise NotSolvableError(f"{game.folder}: the plan does not reach the goal: {commands}")


class _Room:
    """The state of a game as far as plans change it."""

    def __init__(self, tables: Catalog, game: Game) -> None:
        self._tables, self._task = tables, game.task
        self._places = {game.names[place.id]: place for place in game.receptacles}
        self._things: dict[str, Thing] = {game.names[thing.id]: thing for thing in game.things}
        self._home = {name: thing.home for name, thing in self._things.items()}
        self._opened: set[str] = set()
        self._treated: set[tuple[str, str]] = set()  # (verb, object)
        self._toggled: set[str] = set()
        self._held = ""
        self._at: Location = game.start
        for name, thing in self._things.items():
            if thing.kind == self._task.target and thing.home.startswith("Fridge|"):
                self._treated.add(("cool", name))

    def do(self, command: str) -> bool:
        """Carry out a command; False if the game does not admit it."""
        verb, _, rest = command.partition(" ")
        match verb:
            case "go":
                return self._go(rest.removeprefix("to "))
            case "open":
                return self._open(rest)
            case "take":
                return self._take(*rest.split(" from "))
            case "move":
                return self._move(*rest.split(" to "))
            case "use":
                return self._use(rest)
            case _:
                return self._treat(verb, *rest.split(" with "))

    def won(self) -> bool:
        """The goal of the task type, read as goal_library states it."""
        task = self._task
        targets = [name for name, thing in self._things.items() if thing.kind == task.target]
        if task.toggle:
            lamps = {name for name in self._toggled if self._reached_home(name)}
            return bool(lamps) and self._held in targets
        verb = task.type.split("_")[1] if task.type in APPLIANCES else ""
        able = self._tables.abilities[_TREATMENTS[verb][1]] if verb else frozenset({task.target})
        done = [
            self._home[name]
            for name in targets
            if task.target in able and (not verb or (verb, name) in self._treated) and self._home[name]
        ]
        goals = {place.id for place in self._places.values() if place.kind == task.goal}
        return any(done.count(goal) >= task.copies for goal in goals)

    def _go(self, place: str) -> bool:
        if place not in self._places or self._near(place):
            return False
        self._at = self._places[place].location
        return True

    def _open(self, place: str) -> bool:
        if not self._near(place) or self._places[place].kind not in self._tables.openable or place in self._opened:
            return False
        self._opened.add(place)
        return True

    def _take(self, thing: str, place: str) -> bool:
        if (
            self._held
            or not self._accessible(place)
            or self._home.get(thing) != self._places[place].id
            or self._things[thing].kind not in self._tables.portable
        ):
            return False
        self._held, self._home[thing] = thing, ""
        return True

    def _move(self, thing: str, place: str) -> bool:
        if thing != self._held or not self._accessible(place):
            return False
        if self._things[thing].kind not in self._tables.can_contain.get(self._places[place].kind, ()):
            return False
        self._held, self._home[thing] = "", self._places[place].id
        return True

    def _treat(self, verb: str, thing: str, place: str) -> bool:
        kind, ability = _TREATMENTS[verb]
        if thing != self._held or not self._near(place) or self._places[place].kind != kind:
            return False
        if self._things[thing].kind not in self._tables.abilities[ability]:
            return False
        self._treated.add((verb, thing))
        self._treated.discard(({"heat": "cool", "cool": "heat"}.get(verb, ""), thing))
        return True

    def _use(self, thing: str) -> bool:
        if thing not in self._things or self._things[thing].kind != self._task.toggle or not self._reached_home(thing):
            return False
        self._toggled.add(thing)
        return True

    def _near(self, place: str) -> bool:
        return place in self._places and self._places[place].location == self._at

    def _accessible(self, place: str) -> bool:
        if not self._near(place):
            return False
        return self._places[place].kind not in self._tables.openable or place in self._opened

    def _reached_home(self, thing: str) -> bool:
        return any(place.id == self._home[thing] and place.location == self._at for place in self._places.values())

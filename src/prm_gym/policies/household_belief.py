"""What can be known of a household from its observations: the task, and where objects were seen.

The patterns are the sentences of alfworld's grammar (the installed one says `move`, older ones `put`). The `expert`
decides on this, without access to the engine.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from prm_gym.errors import UserError
from prm_gym.types import State

# alfworld's task sentences; the groups are object and receptacle types.
_TASKS = (
    re.compile(r"(?:put|find) (?P<two>two) (?P<target>\w+) (?:in|and put them in) (?P<goal>\w+)"),
    re.compile(r"(?P<treat>clean|heat|cool) some (?P<target>\w+) and put it in (?P<goal>\w+)"),
    re.compile(r"put a (?P<treat>clean|hot|cool) (?P<target>\w+) in (?P<goal>\w+)"),
    re.compile(r"put (?:a|some) (?P<target>\w+) (?:in|on) (?P<goal>\w+)"),
    re.compile(r"look at (?P<target>\w+) under the (?P<lamp>\w+)"),
    re.compile(r"examine the (?P<target>\w+) with the (?P<lamp>\w+)"),
)
_APPLIANCES = {"clean": "sinkbasin", "heat": "microwave", "cool": "fridge"}
_OPPOSITE = {"heat": "cool", "cool": "heat"}

_LISTED = re.compile(r"\ban? (\w+ \d+)")
_VIEW = re.compile(r"(?:On the|The) (\w+ \d+)(?: is open\. In it)?, you see (.*?)\.", re.DOTALL)
_TAKEN = re.compile(r"You pick up the (\w+ \d+) from the (\w+ \d+)\.")
_PLACED = re.compile(r"You (?:move|put) the (\w+ \d+) (?:to|in/on) the (\w+ \d+)\.")
_TREATED = re.compile(r"You (clean|heat|cool) the (\w+ \d+) using")


@dataclass(frozen=True)
class Goal:
    """The goal of a task. Types are lower case; `treat` is clean, heat, cool or empty."""

    target: str
    place: str = ""  # the destination; empty if the target is to be examined under a lamp
    lamp: str = ""
    treat: str = ""
    copies: int = 1

    @property
    def appliance(self) -> str:
        return _APPLIANCES.get(self.treat, "")


@dataclass
class Memory:
    """What the history of an episode shows. Names are the game's, such as `drawer 2`."""

    receptacles: list[str]  # in the order of the first observation
    contents: dict[str, set[str]] = field(default_factory=dict)  # of receptacles whose inside was seen
    seen: dict[str, int] = field(default_factory=dict)  # receptacle -> turn of the last look
    home: dict[str, str] = field(default_factory=dict)  # object -> receptacle it was last taken from
    treated: set[tuple[str, str]] = field(default_factory=set)  # (treatment, object)
    held: str = ""

    def where(self, kind: str) -> list[tuple[str, str]]:
        """(object, receptacle) of all objects of a type whose location is known, sorted."""
        return sorted(
            (thing, place) for place, things in self.contents.items() for thing in things if kind_of(thing) == kind
        )


def kind_of(name: str) -> str:
    """`drawer` for `drawer 2`."""
    return name.rpartition(" ")[0]


def read_task(task: str) -> Goal:
    """The goal of one of alfworld's task sentences. Raises `UserError` for any other sentence."""
    for pattern in _TASKS:
        if match := pattern.search(task):
            words = {key: word for key, word in match.groupdict().items() if word}
            treat = words.get("treat", "")
            return Goal(
                target=words["target"],
                place=words.get("goal", ""),
                lamp=words.get("lamp", ""),
                treat="heat" if treat == "hot" else treat,
                copies=2 if "two" in words else 1,
            )
    raise UserError("expert policy", f"{task!r} is not one of alfworld's templates", "use another policy", field="task")


def read_history(state: State) -> Memory:
    """What the observations show; later ones override earlier ones."""
    memory = Memory(receptacles=_LISTED.findall(state.observations[0].partition("Your task is to")[0]))
    for turn, observation in enumerate(state.observations[1:], start=1):
        _remember(memory, observation, turn)
    return memory


def _remember(memory: Memory, observation: str, turn: int) -> None:
    if match := _VIEW.search(observation):
        place, listed = match.groups()
        memory.contents[place] = set(_LISTED.findall(listed))
        memory.seen[place] = turn
    elif match := _TAKEN.search(observation):
        thing, place = match.groups()
        memory.held, memory.home[thing] = thing, place
        memory.contents.setdefault(place, set()).discard(thing)
    elif match := _PLACED.search(observation):
        thing, place = match.groups()
        memory.held = ""
        memory.contents.setdefault(place, set()).add(thing)
    elif match := _TREATED.search(observation):
        verb, thing = match.groups()
        memory.treated.add((verb, thing))
        memory.treated.discard((_OPPOSITE.get(verb, ""), thing))

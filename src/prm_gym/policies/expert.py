"""A scripted expert for household tasks, for demonstrations and as an upper bound.

It reads what any policy reads (task, observations, actions, admissible commands) and decides from the state alone, so
it recovers from any earlier action, its own random ones included. It searches receptacles it has not seen, brings the
object to its destination, and gives a one-sentence reason for every action. Shares of random actions and of mistakes
set the quality of demonstrations.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

from prm_gym.errors import UserError, check_range
from prm_gym.policies.household_belief import kind_of, read_history, read_task
from prm_gym.prompts import format_response
from prm_gym.types import Response, State

RANDOM_REASON = "I try something at random."
MISTAKE_REASON = "I try something that may not work."
DAWDLE_REASON = "I look around once more first."
_USUALLY_CLOSED = ("cabinet", "drawer", "fridge", "microwave", "safe")


SEARCHES = ("rare_first", "as_listed", "anywhere")  # the orders of `search`


class ExpertPolicy:
    """Solves alfworld's six task types from text. A pure function of the state and the seed.

    Parameters
    ----------
    random_actions: share of turns, in [0, 1], with a uniformly random admissible command instead. Which turns and
        commands depends on the seed, the game and the turn.
    mistakes: share of turns with an inadmissible command, made of names from the observations. They teach a model how
        to go on after "Nothing happens."
    dawdling: share of moves to another receptacle that are preceded by a needless `look`, which costs a step. Above one
        half a model imitates it even at a low temperature.
    search: the order of receptacles, those in reach first. `rare_first`: rare types and those that usually stand open
        first, which finds objects soonest. `as_listed`: the order of the first observation, the easiest to imitate.
        `anywhere`: random, in reach or not.
    """

    def __init__(
        self,
        random_actions: float = 0.0,
        *,
        mistakes: float = 0.0,
        dawdling: float = 0.0,
        search: str = "rare_first",
        policy_id: str | None = None,
    ) -> None:
        shares = {"random_actions": random_actions, "mistakes": mistakes, "dawdling": dawdling}
        for field, share in shares.items():
            check_range(field, share, least=0, most=1)
        if random_actions + mistakes > 1:
            problem = f"with random_actions {random_actions:g} makes more than all actions"
            raise UserError("mistakes", f"{mistakes:g} {problem}", "their sum is at most 1")
        if search not in SEARCHES:
            raise UserError("search", f"no order {search!r}", "say rare_first, as_listed or anywhere")
        self.random_actions = random_actions
        self.mistakes = mistakes
        self.dawdling = dawdling
        self.search = search
        named = [f"{field.removesuffix('_actions')}{share:g}" for field, share in shares.items() if share]
        self.policy_id = "-".join(["expert", *named]) if policy_id is None else policy_id

    async def settings(self) -> dict[str, Any]:
        shares = {"random_actions": self.random_actions, "mistakes": self.mistakes, "dawdling": self.dawdling}
        return {"kind": "expert", **shares, "search": self.search}

    async def act(self, state: State, *, n: int = 1, seed: int = 0) -> list[Response]:
        return [self.respond(state, seed=seed, sample=sample) for sample in range(n)]

    async def close(self) -> None:
        pass

    def respond(self, state: State, *, seed: int = 0, sample: int = 0) -> Response:
        """One response at `state`; samples differ only in their random actions."""
        rng = random.Random(f"{seed} {state.game_id} {state.turn} {sample}")
        draw = rng.random()
        if draw < self.random_actions:
            reason, action = RANDOM_REASON, rng.choice(state.admissible_commands or ("look",))
        elif draw < self.random_actions + self.mistakes:
            reason, action = MISTAKE_REASON, _mistake(state, rng)
        else:
            reason, action = _Decision(state, self.search, rng).make()
            if action.startswith("go to ") and state.actions[-1:] != ("look",) and rng.random() < self.dawdling:
                reason, action = DAWDLE_REASON, "look"
        return Response(text=format_response(reason, action), reason=reason, action=action)


def _mistake(state: State, rng: random.Random) -> str:
    """An inadmissible command made of known names; `look` if ten draws find none.

    Half of the draws take the task's object as if it were here: the answers teach a model to notice when it is not.
    """
    goal, memory = read_task(state.task), read_history(state)
    things = sorted({thing for inside in memory.contents.values() for thing in inside} | {memory.held} - {""})
    commands = state.admissible_commands or ()
    here = [command.removeprefix("examine ") for command in commands if command.startswith("examine ")]
    for _ in range(10):
        if rng.random() < 0.5:
            thing, place = f"{goal.target} {rng.choice('112')}", rng.choice(here or ["shelf 1"])
        else:
            thing, place = rng.choice(things or ["mug 1"]), rng.choice(memory.receptacles or ["shelf 1"])
        forms = (f"go to {place}", f"open {place}", f"take {thing} from {place}", f"move {thing} to {place}")
        if (command := rng.choice(forms)) not in commands:
            return command
    return "look"


class _Decision:
    """The decision at one state. Methods return (reason, action)."""

    def __init__(self, state: State, search: str, rng: random.Random) -> None:
        self.goal = read_task(state.task)
        self.memory = read_history(state)
        self.commands = set(state.admissible_commands or ())
        self.search, self.rng = search, rng

    def make(self) -> tuple[str, str]:
        held = self.memory.held
        if not held:
            return self._fetch()
        if kind_of(held) != self.goal.target:
            return self._put_back()
        if self.goal.lamp:
            return self._use_lamp()
        if self.goal.treat and (self.goal.treat, held) not in self.memory.treated:
            return self._treat()
        return self._place()

    def _fetch(self) -> tuple[str, str]:
        """Take a target object that is not yet at its destination, if one is known, else search for one."""
        target = self.goal.target
        finished = self._destination() if self.goal.copies > 1 else ""
        known = [(thing, place) for thing, place in self.memory.where(target) if place != finished]
        for thing, place in known:
            if (take := f"take {thing} from {place}") in self.commands:
                return f"Here is {thing}, I take it.", take
        for thing, place in known:
            return self._reach(place, f"There is {thing} in {place}")
        return self._search(target)

    def _use_lamp(self) -> tuple[str, str]:
        target, lamp = self.goal.target, self.goal.lamp
        for command in sorted(self.commands):
            if command.startswith(f"use {lamp} "):
                return f"I have the {target}, I use the {lamp}.", command
        for thing, place in self.memory.where(lamp):
            return self._reach(place, f"I have the {target}, {thing} is on {place}")
        return self._search(lamp)

    def _treat(self) -> tuple[str, str]:
        verb, target = self.goal.treat, self.goal.target
        appliances = self._all(self.goal.appliance)
        for place in appliances:
            if (treat := f"{verb} {self.memory.held} with {place}") in self.commands:
                return f"I {verb} the {target} here.", treat
        return self._go(next(iter(appliances), ""), f"I have the {target}, I must {verb} it")

    def _place(self) -> tuple[str, str]:
        held, target, place = self.memory.held, self.goal.target, self._destination()
        for move in (f"move {held} to {place}", f"put {held} in/on {place}"):
            if move in self.commands:
                return f"I put the {target} where it belongs.", move
        return self._reach(place, f"I have the {target}, it belongs in {place}")

    def _put_back(self) -> tuple[str, str]:
        """Put down an object that the task does not need: here if possible, else where it came from."""
        held = self.memory.held
        for command in sorted(self.commands):
            if command.startswith((f"move {held} to ", f"put {held} in/on ")):
                return f"I do not need {held}, I leave it here.", command
        return self._reach(self.memory.home.get(held, ""), f"I do not need {held}")

    def _search(self, kind: str) -> tuple[str, str]:
        """Go to a receptacle not seen yet, within reach first; if all were seen, to the one seen longest ago."""
        count = Counter(kind_of(place) for place in self.memory.receptacles)

        def priority(place: str) -> tuple[float, ...]:
            seen, far = self.memory.seen.get(place, 0), f"examine {place}" not in self.commands
            if self.search == "anywhere":
                return seen, self.rng.random()
            if self.search == "as_listed":
                return seen, far
            return seen, far, count[kind_of(place)], kind_of(place) in _USUALLY_CLOSED

        return self._reach(min(self.memory.receptacles, key=priority, default=""), f"I look for the {kind}")

    def _destination(self) -> str:
        """The receptacle to fill: the one with the most target objects, else one whose contents were seen."""
        there = Counter(place for _, place in self.memory.where(self.goal.target))
        return min(
            self._all(self.goal.place),
            key=lambda place: (-there[place], place not in self.memory.seen, place),
            default="",
        )

    def _all(self, kind: str) -> list[str]:
        return sorted(place for place in self.memory.receptacles if kind_of(place) == kind)

    def _reach(self, place: str, reason: str) -> tuple[str, str]:
        """Open a receptacle that is here and closed, otherwise go there."""
        if (command := f"open {place}") in self.commands:
            return f"{reason}, I open {place}.", command
        return self._go(place, reason)

    def _go(self, place: str, reason: str) -> tuple[str, str]:
        """Go to a receptacle, or examine it if it is here, or look around if none is known."""
        if (command := f"go to {place}") in self.commands:
            return f"{reason}, I go to {place}.", command
        if (command := f"examine {place}") in self.commands:
            return f"{reason}, I look at {place}.", command
        return f"{reason}, I look around.", "look"

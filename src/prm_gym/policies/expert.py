"""A scripted expert for household tasks, for demonstrations and as an upper bound.

It reads what any player reads (task, observations, actions, admissible commands) and decides afresh at every turn, so
it recovers from whatever was done before, its own random actions included. It searches receptacles it has not looked
into, those of rare types and those that stand open first, brings what it finds where the task wants it, and gives a
one-sentence reason for every action. A share of random actions makes demonstrations of a chosen quality.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from hashlib import blake2b

from prm_gym.errors import UserError
from prm_gym.policies.reading import Goal, Memory, kind_of, read_history, read_task
from prm_gym.prompts import format_response
from prm_gym.types import Response, State

RANDOM_REASON = "I try something at random."
_USUALLY_CLOSED = ("cabinet", "drawer", "fridge", "microwave", "safe")


class ExpertPolicy:
    """Solves alfworld's six task types from text. A pure function of the state and the seed.

    Parameters
    ----------
    random_actions: share of turns, in [0, 1], on which a uniformly random admissible command is taken instead; which
        turns and which commands depends on the seed, the game and the turn.
    order_seed: settles in which order receptacles that are equally promising are searched.
    """

    def __init__(self, random_actions: float = 0.0, *, order_seed: int = 0) -> None:
        if not 0.0 <= random_actions <= 1.0:
            raise UserError("expert policy", f"{random_actions} is no share", "give 0 to 1", field="random_actions")
        self.random_actions = random_actions
        self.order_seed = order_seed
        self.policy_id = f"expert-random{random_actions:g}" if random_actions else "expert"

    async def act(self, state: State, *, n: int = 1, seed: int = 0) -> list[Response]:
        return [self.respond(state, seed=seed, sample=sample) for sample in range(n)]

    async def close(self) -> None:
        pass

    def respond(self, state: State, *, seed: int = 0, sample: int = 0) -> Response:
        """One response at `state`; samples differ only in their random actions."""
        rng = random.Random(f"{seed} {state.game_id} {state.turn} {sample}")
        if rng.random() < self.random_actions:
            reason, action = RANDOM_REASON, rng.choice(state.admissible_commands)
        else:
            reason, action = _Decision(state, self.order_seed).make()
        return Response(text=format_response(reason, action), reason=reason, action=action)


@dataclass
class _Decision:
    """One turn. Methods return (reason, action)."""

    state: State
    order_seed: int

    def make(self) -> tuple[str, str]:
        goal, memory = read_task(self.state.task), read_history(self.state)
        self.memory: Memory = memory
        self.goal: Goal = goal
        self.commands = set(self.state.admissible_commands)
        if not memory.held:
            return self._fetch()
        if kind_of(memory.held) != goal.target:
            return self._put_back()
        if goal.lamp:
            return self._use_lamp()
        if goal.treat and (goal.treat, memory.held) not in memory.treated:
            return self._treat()
        return self._place()

    def _fetch(self) -> tuple[str, str]:
        """Go and take a target object that is not yet where it belongs."""
        finished = self._destination() if self.goal.copies > 1 else ""
        target = self.goal.target
        known = [(thing, place) for thing, place in self.memory.where(target) if place != finished]
        if not known:
            return self._search(target)
        thing, place = min(known, key=lambda pair: (f"take {pair[0]} from {pair[1]}" not in self.commands, pair))
        take = f"take {thing} from {place}"
        if take in self.commands:
            return f"Here is {thing}, I take it.", take
        return self._reach(place, f"There is {thing} in {place}")

    def _use_lamp(self) -> tuple[str, str]:
        lamp = self.goal.lamp
        use = sorted(command for command in self.commands if command.startswith(f"use {lamp} "))
        if use:
            return f"I have the {self.goal.target}, I use the {lamp}.", use[0]
        for thing, place in self.memory.where(lamp):
            return self._reach(place, f"I have the {self.goal.target}, {thing} is on {place}")
        return self._search(lamp)

    def _treat(self) -> tuple[str, str]:
        verb, held = self.goal.treat, self.memory.held
        appliances = self._all(self.goal.appliance)
        if not appliances:
            return self._search(self.goal.appliance)
        treat = [command for place in appliances if (command := f"{verb} {held} with {place}") in self.commands]
        if treat:
            return f"I {verb} the {self.goal.target} here.", treat[0]
        return self._reach(appliances[0], f"I have the {self.goal.target}, I must {verb} it", openable=False)

    def _place(self) -> tuple[str, str]:
        held, place = self.memory.held, self._destination()
        move = self._move(held, place)
        if move in self.commands:
            return f"I put the {self.goal.target} where it belongs.", move
        return self._reach(place, f"I have the {self.goal.target}, it belongs in {place}")

    def _put_back(self) -> tuple[str, str]:
        """Get rid of an object that is not wanted, here if this place takes it, else where it came from."""
        held = self.memory.held
        moves = sorted(command for command in self.commands if command.startswith((f"move {held} ", f"put {held} ")))
        reason = f"I do not need {held}"
        if moves:
            return f"{reason}, I leave it here.", moves[0]
        return self._reach(self.memory.home[held], reason)

    def _search(self, kind: str) -> tuple[str, str]:
        """Look where nobody has looked yet, or where it was longest ago; first what is within reach."""
        places = sorted(self.memory.receptacles, key=self._promise)
        unseen = [place for place in places if place not in self.memory.seen]
        near = [place for place in unseen if f"examine {place}" in self.commands]
        choice = next(iter(near or unseen or places), "")
        return self._reach(choice, f"I look for the {kind}")

    def _promise(self, place: str) -> tuple[int, int, bool, bytes]:
        kind = kind_of(place)
        rarity = sum(kind_of(other) == kind for other in self.memory.receptacles)
        tie = blake2b(f"{self.order_seed} {place}".encode(), digest_size=8).digest()
        return self.memory.seen.get(place, 0), rarity, kind in _USUALLY_CLOSED, tie

    def _destination(self) -> str:
        """The receptacle to fill: the one with most target objects in it, else one that is known to be open."""
        places = self._all(self.goal.place)
        held = {place: sum(there == place for _, there in self.memory.where(self.goal.target)) for place in places}
        return min(places, key=lambda place: (-held[place], place not in self.memory.seen, places.index(place)))

    def _all(self, kind: str) -> list[str]:
        return sorted(place for place in self.memory.receptacles if kind_of(place) == kind)

    def _reach(self, place: str, reason: str, *, openable: bool = True) -> tuple[str, str]:
        """Go to a receptacle, open it, or look at it once more when it is neither far nor closed."""
        if openable and f"open {place}" in self.commands:
            return f"{reason}, I open {place}.", f"open {place}"
        if f"go to {place}" in self.commands:
            return f"{reason}, I go to {place}.", f"go to {place}"
        if f"examine {place}" in self.commands:
            return f"{reason}, I look at {place}.", f"examine {place}"
        return f"{reason}, I look around.", "look"

    def _move(self, thing: str, place: str) -> str:
        return next(
            (c for c in (f"move {thing} to {place}", f"put {thing} in/on {place}") if c in self.commands), ""
        )

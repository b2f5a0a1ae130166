"""Walks through a game that visit the states where engines err, and a comparison of two engines along a walk."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from prm_gym.envs.engine_interface import Play

# How often a kind of command is chosen where it is admissible. What changes things, and looking at what changed, matter
# most; going about must not take over only because there are many places to go to.
VERBS = {
    "go": 3.0,
    "take": 4.0,
    "move": 3.0,
    "open": 3.0,
    "close": 1.0,
    "look": 2.0,
    "inventory": 1.0,
    "examine": 2.0,
    "help": 0.2,
    "use": 3.0,
    "heat": 4.0,
    "cool": 4.0,
    "clean": 4.0,
    "slice": 4.0,
}
INVALID = ("", " ", "Look", "go to nowhere 1", "take mug 9 from desk 9", "look\tat", "put mug 1 in/on desk 1")
LOOSE = (" {} ", "\n{}", "{}\t")  # the same command: only what surrounds it is dropped


def choose(rng: random.Random, admissible: Sequence[str]) -> str:
    """A command: mostly admissible, by its verb; now and then one that is not, or one in loose form."""
    if rng.random() < 0.04:
        return rng.choice(INVALID)
    by_verb: dict[str, list[str]] = {}
    for command in admissible:
        by_verb.setdefault(command.split(" ")[0], []).append(command)
    verbs = list(by_verb)
    verb = rng.choices(verbs, [VERBS[verb] for verb in verbs])[0]
    command = rng.choice(by_verb[verb])
    if rng.random() < 0.04:
        return rng.choice(LOOSE).format(command)
    return command + " " * (rng.random() < 0.02) + "1" * (rng.random() < 0.02)


def follow(rng: random.Random, plan: Sequence[str], play: Play, steps: int) -> Iterator[str]:
    """Random commands in between those of a plan, which wins if they do not spoil it; and on past the win."""
    todo = list(plan)
    for _ in range(steps):
        if todo and rng.random() < 0.5:
            if todo[0] in play.admissible_commands:
                yield todo.pop(0)
                continue
            # A detour has led away: go back to where the plan goes on, if the command tells where that is.
            place = todo[0].split(" from ")[-1].split(" with ")[-1].split(" to ")[-1]
            if f"go to {place}" in play.admissible_commands:
                yield f"go to {place}"
                continue
        yield choose(rng, play.admissible_commands)


def assert_same(stock: Play, exact: Play, after: str) -> None:
    """Both show the same text, accept the same commands in the same order, and agree on the win."""
    assert exact.observation == stock.observation, after
    assert list(exact.admissible_commands) == list(stock.admissible_commands), after
    assert exact.won == stock.won, after

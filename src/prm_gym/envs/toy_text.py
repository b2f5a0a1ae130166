"""Gymnasium's toy-text environments in words: FrozenLake, Taxi and CliffWalking. They need no further package.

`frozen_lake`, `taxi` and `cliff_walking` are factories for `NamedEnvironment`; their arguments are those of gymnasium's
environments. In Taxi and CliffWalking the reward of a step is -1, so they need a `reward_range`: for at most T steps,
[-10 T, 20] for Taxi and [-100 T, 0] for CliffWalking.
"""

from __future__ import annotations

from typing import Any

import gymnasium

from prm_gym.envs.described import Described

# In the order of the actions of FrozenLake, of CliffWalking, and of Taxi.
_LAKE = ("go west", "go south", "go east", "go north")
_CLIFF = ("go north", "go east", "go south", "go west")
_TAXI = ("go south", "go north", "go east", "go west", "pick up the passenger", "drop off the passenger")
_STEPS = {"north": (-1, 0), "south": (1, 0), "west": (0, -1), "east": (0, 1)}
_TILES = {"S": "ice", "F": "ice", "H": "a hole", "G": "the goal", "C": "the cliff"}
_STANDS = ("red", "green", "yellow", "blue")


class _Grid(Described):
    """A map of letters to walk on; `actions` are the commands in the order of the environment's action numbers."""

    actions: tuple[str, ...]
    sentence: str

    def letters(self) -> list[str]:
        """The rows of the map."""
        raise NotImplementedError

    def describe(self, observation: Any) -> str:
        rows = self.letters()
        row, column = divmod(int(observation), len(rows[0]))
        here = rows[row][column]
        if here == "G":
            return "You are at the goal."
        if here == "H":
            return "You fell into a hole."
        around = []
        for name, (down, right) in _STEPS.items():
            inside = 0 <= row + down < len(rows) and 0 <= column + right < len(rows[0])
            around.append(f"{_TILES[rows[row + down][column + right]] if inside else 'a wall'} to the {name}")
        return f"You are in row {row + 1}, column {column + 1}. There is {', '.join(around)}."

    def parse(self, command: str) -> Any:
        return self.actions.index(command) if command in self.actions else None

    def commands(self, observation: Any, info: dict[str, Any]) -> list[str] | None:
        return sorted(self.actions)

    def facts(self, observation: Any) -> dict[str, Any]:
        return {"task": self.sentence, "won": self.describe(observation) == "You are at the goal."}


class FrozenLake(_Grid):
    actions, sentence = _LAKE, "walk over the ice to the goal, and into no hole"

    def letters(self) -> list[str]:
        return ["".join(letter.decode() for letter in row) for row in self.get_wrapper_attr("desc")]


class CliffWalking(_Grid):
    actions, sentence = _CLIFF, "walk to the goal in as few steps as you can; who steps over the cliff starts again"

    def letters(self) -> list[str]:
        return ["F" * 12] * 3 + ["S" + "C" * 10 + "G"]


class Taxi(Described):
    def describe(self, observation: Any) -> str:
        row, column, passenger, destination = self._decoded(observation)
        where = "in the taxi" if passenger == len(_STANDS) else f"at the {_STANDS[passenger]} stand"
        possible = self.get_wrapper_attr("action_mask")(int(observation))
        ways = [name.removeprefix("go ") for name, is_free in zip(_TAXI[:4], possible, strict=False) if is_free]
        stand = next((f", at the {_STANDS[i]} stand" for i, at in enumerate(self._stands()) if at == (row, column)), "")
        return (
            f"The taxi is in row {row + 1}, column {column + 1}{stand}; the way is free to the {', '.join(ways)}. "
            f"The passenger is {where} and wants to go to the {_STANDS[destination]} stand."
        )

    def parse(self, command: str) -> Any:
        return _TAXI.index(command) if command in _TAXI else None

    def commands(self, observation: Any, info: dict[str, Any]) -> list[str] | None:
        return sorted(name for name, possible in zip(_TAXI, info["action_mask"], strict=True) if possible)

    def facts(self, observation: Any) -> dict[str, Any]:
        *_, passenger, destination = self._decoded(observation)
        places = zip(_STANDS, self._stands(), strict=True)
        stands = "; ".join(f"{name} in row {row + 1}, column {column + 1}" for name, (row, column) in places)
        task = f"fetch the passenger and drop them off; the stands are {stands}"
        return {"task": task, "won": passenger == destination}

    def _decoded(self, observation: Any) -> tuple[int, int, int, int]:
        row, column, passenger, destination = self.get_wrapper_attr("decode")(int(observation))
        return row, column, passenger, destination

    def _stands(self) -> list[tuple[int, int]]:
        return [tuple(place) for place in self.get_wrapper_attr("locs")]


def frozen_lake(**kwargs: Any) -> FrozenLake:
    return FrozenLake(_latest("FrozenLake", kwargs))


def cliff_walking(**kwargs: Any) -> CliffWalking:
    return CliffWalking(_latest("CliffWalking", kwargs))


def taxi(**kwargs: Any) -> Taxi:
    return Taxi(_latest("Taxi", kwargs))


def _latest(name: str, kwargs: dict[str, Any]) -> gymnasium.Env[Any, Any]:
    """The version of the environment that this gymnasium has; the rollout has the step limit."""
    specs = [spec for spec in gymnasium.registry.values() if spec.name == name]
    return gymnasium.make(max(specs, key=lambda spec: spec.version or 0), max_episode_steps=-1, **kwargs)

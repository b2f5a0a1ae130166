"""A learned world against the environment: the share of observations that it predicts word for word.

At a drawn turn of each episode the model is given the true history and the actions that the episode went on to take. It
imagines their observations one after the other, each on top of those it imagined before, and they are compared with the
stored ones, which are the environment's. *Depth* d is the d-th imagined step. The *kind* of an action is its first
word; "again" marks an action that the episode had taken before, whose answer the history may hold, and "inadmissible"
one that the environment refused. The first sight of a place cannot be known, only guessed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from prm_gym.errors import UserError, check_range
from prm_gym.policies.worlds import World
from prm_gym.rollout.concurrency import in_parallel, run_and_close
from prm_gym.rollout.episode import hash_seed
from prm_gym.types import Episode, PromptTooLong, Response

Cell = tuple[str, int]  # kind, depth


@dataclass
class WorldQuality:
    """`right` of `asked` observations, by (kind of action, depth). `ends`: [imagined, true] ends by a win to counts."""

    asked: dict[Cell, int] = field(default_factory=lambda: defaultdict(int))
    right: dict[Cell, int] = field(default_factory=lambda: defaultdict(int))
    ends: dict[tuple[bool, bool], int] = field(default_factory=lambda: defaultdict(int))
    too_long: int = 0

    def share(self, kind: str | None = None, depth: int | None = None) -> tuple[int, int]:
        """(right, asked) over the cells of `kind` and `depth`, all if None."""
        cells = [c for c in self.asked if kind in (None, c[0]) and depth in (None, c[1])]
        return sum(self.right[c] for c in cells), sum(self.asked[c] for c in cells)

    def as_dict(self) -> dict[str, Any]:
        """JSON values: [right, asked] by kind and depth, and how often a win was imagined and true."""
        depths = sorted({depth for _, depth in self.asked})
        kinds = sorted({kind for kind, _ in self.asked})
        return {
            "all": {str(depth): list(self.share(depth=depth)) for depth in depths},
            "by_kind": {kind: {str(depth): list(self.share(kind, depth)) for depth in depths} for kind in kinds},
            "wins": {
                "imagined and true": self.ends[True, True],
                "imagined alone": self.ends[True, False],
                "true alone": self.ends[False, True],
            },
            "too_long": self.too_long,
        }


async def world_quality(
    episodes: Iterable[Episode], world: World, *, depth: int = 3, seed: int = 0, concurrency: int = 32
) -> WorldQuality:
    """Compare up to `depth` imagined steps from one drawn turn of each episode. Does not close `world`.

    Raises `UserError` if no episode has an action.
    """
    check_range("depth", depth, least=1)
    found = WorldQuality()

    async def one(episode: Episode) -> None:
        begin = hash_seed("world", seed, episode.episode_id) % episode.actions
        state = episode.state_at(begin)
        for d, turn in enumerate(episode.turns[begin : begin + depth], 1):
            if turn.reward is None:
                break
            try:
                response = Response(turn.response, turn.reason, turn.action)
                state, won, _ = await world.step(
                    state, response, seed=hash_seed("imagine", seed, episode.episode_id, d)
                )
            except PromptTooLong:
                found.too_long += 1
                break
            cell = kind(episode, turn.turn), d
            found.asked[cell] += 1
            found.right[cell] += state.observations[-1] == episode.turns[turn.turn + 1].observation
            found.ends[won, episode.won and turn.terminated] += 1

    await in_parallel((episode for episode in episodes if episode.actions), one, concurrency)
    if not found.asked and not found.too_long:
        raise UserError("episodes", "there is none with an action", "name folders of collected episodes")
    return found


def kind(episode: Episode, turn: int) -> str:
    """The kind of the action at `turn`: `go`, `go again`, `inadmissible`."""
    taken = episode.turns[turn]
    if taken.action_valid is False:
        return "inadmissible"
    again = any(past.action == taken.action for past in episode.turns[:turn])
    return (taken.action.partition(" ")[0] or "nothing") + (" again" if again else "")


def measure(episodes: Iterable[Episode], world: World, *, depth: int = 3, seed: int = 0) -> WorldQuality:
    """`world_quality` for callers without an event loop; closes the world."""
    return run_and_close(world_quality(episodes, world, depth=depth, seed=seed), world)

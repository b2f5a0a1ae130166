"""What the actions tried at the states of branches are worth: the mean discounted return of the rollouts after each."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from prm_gym.store import read_episodes
from prm_gym.types import State, Turn


class Tried(NamedTuple):
    """The actions tried at a state: the turn of one branch with each, and its mean return gamma^(T-1-t) [won]."""

    state: State
    turns: dict[str, Turn]
    values: dict[str, float]


def tried_at(branches: Path, gamma: float) -> list[Tried]:
    """One entry for each state, in the order of the store. A win is the only reward."""
    returns: dict[bytes, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    found: dict[bytes, Tried] = {}
    for episode in read_episodes(branches):
        turn = episode.turns[episode.branch_turn]
        value = gamma ** (episode.actions - 1 - episode.branch_turn) if episode.won else 0.0
        returns[turn.state_key][turn.action].append(value)
        if turn.state_key not in found:
            found[turn.state_key] = Tried(episode.state_at(episode.branch_turn), {}, {})
        found[turn.state_key].turns[turn.action] = turn
    for key, of in returns.items():
        found[key].values.update({action: fmean(values) for action, values in of.items()})
    return list(found.values())

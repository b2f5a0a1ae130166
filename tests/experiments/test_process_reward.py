"""The process reward of a policy: Q of its own actions at fixed states, the same for every PRM."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from experiments.process_reward import lower_bound, process_rewards, states_of
from prm_gym.store import EpisodeWriter
from prm_gym.types import Episode, Response, State, Turn


class Alternating:
    """Acts by the number of its seed; remembers being closed."""

    policy_id, closed = "alternating", False

    async def act(self, state: State, *, n: int = 1, seed: int = 0) -> list[Response]:
        return [Response("", "", f"go {seed % 2}")] * n

    async def close(self) -> None:
        self.closed = True


class Table:
    def __init__(self, **q: float) -> None:
        self.q = q

    async def score(self, pairs: list[tuple[State, Response]]) -> list[float]:
        return [self.q["even" if response.action == "go 0" else "odd"] for _, response in pairs]


def test_every_prm_scores_the_policy_s_own_actions() -> None:
    states, policy = [State(f"g{i}", "t", ("o",), (), ("go 0", "go 1")) for i in range(5)], Alternating()
    found = process_rewards(policy, [Table(even=1.0, odd=0.0), Table(even=0.2, odd=0.7)], states)
    assert found.tolist() == [[1.0, 0.0, 1.0, 0.0, 1.0], [0.2, 0.7, 0.2, 0.7, 0.2]]
    assert policy.closed


def test_what_qs_disagree_on_counts_less() -> None:
    """Means 2 and 2; deviations 0 and 1."""
    assert lower_bound(np.array([[2.0, 1.0], [2.0, 3.0]])) == pytest.approx((2 + 1) / 2)


def test_states_are_those_in_which_an_action_was_chosen(tmp_path: Path) -> None:
    with EpisodeWriter(tmp_path) as writer:
        for game in range(3):
            turns = [Turn(t, f"o{t}", ["a"], response="a", action="a", reward=0.0) for t in range(4)]
            writer.add(
                Episode(f"e{game}", f"g{game}", "s", "t", "k", "p", 0, 0, "step_limit", [*turns, Turn(4, "o4", [])])
            )
    states = states_of(tmp_path, 100)
    assert sorted((state.game_id, len(state.observations)) for state in states) == [
        (f"g{game}", t) for game in range(3) for t in (1, 2, 3, 4)
    ]
    assert states_of(tmp_path, 5) == states_of(tmp_path, 5)
    assert len(states_of(tmp_path, 5)) == 5

"""Gymnasium's toy-text environments in words, against their own transition tables (`env.unwrapped.P`)."""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from datasets import load_dataset

from prm_gym.envs.named import NamedEnvironment
from prm_gym.envs.toy_text import CliffWalking, FrozenLake, Taxi, cliff_walking, frozen_lake, taxi
from prm_gym.labels import monte_carlo
from prm_gym.policies.random import RandomPolicy
from prm_gym.rollout import rollout, rollout_branches
from prm_gym.store import read_episodes
from prm_gym.types import Response, State

GAMMA = 0.9
LAKE = "prm_gym.envs.toy_text:frozen_lake"


def action_values(p: dict[int, Any], horizon: int | None = None) -> np.ndarray:
    """Q of the optimal policy, or with `horizon` steps to go that of the uniform one, by value iteration; [S, A]."""
    v, q = np.zeros(len(p)), np.zeros((len(p), len(p[0])))
    for _ in range(horizon or 1000):
        for s, actions in p.items():
            for a, outcomes in actions.items():
                q[s, a] = sum(prob * (r + GAMMA * v[after] * (not end)) for prob, after, r, end in outcomes)
        v = q.max(axis=1) if horizon is None else q.mean(axis=1)
    return q


def square(observation: str, columns: int) -> int:
    words = observation.replace(",", "").replace(".", "").split()
    return (int(words[4]) - 1) * columns + int(words[6]) - 1


class Optimal:
    """Acts by value iteration, at the square that the text names."""

    policy_id = "optimal"

    def __init__(self, q: np.ndarray, columns: int) -> None:
        self.q, self.columns = q, columns

    async def settings(self) -> dict[str, Any]:
        return {"kind": "optimal"}

    async def act(self, state: State, *, n: int = 1, seed: int = 0) -> list[Response]:
        best = FrozenLake.actions[int(self.q[square(state.observations[-1], self.columns)].argmax())]
        return [Response(f"REASON: \nACTION: {best}", "", best)] * n

    async def close(self) -> None:
        pass


@pytest.mark.parametrize(("map_name", "columns"), [("4x4", 4), ("8x8", 8)])
def test_targets_of_the_optimal_policy_are_those_of_value_iteration(
    tmp_path: Path, map_name: str, columns: int
) -> None:
    env = NamedEnvironment(factory=LAKE, kwargs={"map_name": map_name, "is_slippery": False})
    q = action_values(gymnasium.make("FrozenLake-v1", **env.kwargs).unwrapped.P)
    tasks, policy = env.tasks("train")[:3], Optimal(q, columns)
    rollout(tasks, policy, tmp_path / "store", make_env=env, progress=False)
    episodes = list(read_episodes(tmp_path / "store"))
    assert {(e.stop_reason, e.actions) for e in episodes} == {("won", 2 * (columns - 1))}
    monte_carlo.label([tmp_path / "store"], tmp_path / "q", gamma=GAMMA, prompt="general")
    rows = [row for split in load_dataset(str(tmp_path / "q")).values() for row in split]
    assert len(rows) == 3 * 2 * (columns - 1)
    for row in rows:
        s = square(row["prompt"][1]["content"].rpartition("Current observation: ")[2], columns)
        a = FrozenLake.actions.index(row["completion"][0]["content"].partition("ACTION: ")[2])
        assert row["target"] == pytest.approx(q[s, a], abs=1e-9)


def test_returns_on_slippery_ice_are_those_of_policy_evaluation_on_average(tmp_path: Path) -> None:
    horizon = 12
    env = NamedEnvironment(factory=LAKE, kwargs={"desc": ["SFF", "FFH", "FFG"]})
    expected = action_values(gymnasium.make("FrozenLake-v1", **env.kwargs).unwrapped.P, horizon)[0]
    tasks = env.tasks("train")[:800]
    rollout(tasks, RandomPolicy(), tmp_path, make_env=env, max_episode_steps=horizon, progress=False)
    found: dict[str, list[float]] = defaultdict(list)
    stops = set()
    for episode in read_episodes(tmp_path):
        g = sum(GAMMA**t * turn.reward for t, turn in enumerate(episode.turns[:-1]) if turn.reward)
        found[episode.turns[0].action].append(g)
        stops.add(episode.stop_reason)
    assert stops == {"won", "lost", "step_limit"}
    for a, action in enumerate(FrozenLake.actions):
        error = np.std(found[action]) / math.sqrt(len(found[action]))
        assert np.mean(found[action]) == pytest.approx(expected[a], abs=4 * error)


def test_slippery_ice_is_branched_by_its_seed(tmp_path: Path) -> None:
    env = NamedEnvironment(factory=LAKE)
    tasks = env.tasks("train")[:5]
    rollout(tasks, RandomPolicy(), tmp_path / "a", make_env=env, progress=False)
    branches = rollout_branches(tmp_path / "a", tasks, RandomPolicy(), tmp_path / "b", make_env=env, progress=False)
    assert branches.episodes > 10


@pytest.mark.parametrize(
    ("make", "name"), [(frozen_lake, "FrozenLake"), (cliff_walking, "CliffWalking"), (taxi, "Taxi")]
)
def test_every_command_does_what_its_number_does(make: Any, name: str) -> None:
    told = make()
    plain = gymnasium.make(told.unwrapped.spec.id)
    numbers = {FrozenLake: 4, CliffWalking: 4, Taxi: 6}[type(told)]
    rng = np.random.default_rng(0)
    for episode in range(20):
        observation, info = told.reset(seed=episode)
        plain.reset(seed=episode)
        for _ in range(30):
            assert info["admissible_commands"] == sorted(info["admissible_commands"])
            action = int(rng.integers(numbers))
            command = (told.actions if name != "Taxi" else TAXI)[action]
            observation, reward, terminated, _, info = told.step(command)
            number, expected, ended, _, _ = plain.step(action)
            assert (told.unwrapped.s, reward, terminated) == (number, expected, ended)
            assert told.describe(number) == observation
            if ended:
                break


TAXI = ("go south", "go north", "go east", "go west", "pick up the passenger", "drop off the passenger")


def test_different_states_read_differently() -> None:
    for env in (frozen_lake(), cliff_walking(), taxi()):
        env.reset(seed=0)
        states = [s for s in range(env.unwrapped.observation_space.n) if s not in ends(env)]
        assert len({env.describe(s) for s in states}) == len(states)


def ends(env: Any) -> set[int]:
    """States of FrozenLake where an episode ends, and CliffWalking's cliff, where nobody stands."""
    if isinstance(env, FrozenLake):
        return {i for i, tile in enumerate("".join(env.letters())) if tile in "HG"}
    return set(range(37, 47)) if isinstance(env, CliffWalking) else set()


def test_what_is_not_understood_costs_a_step_and_changes_nothing() -> None:
    env = frozen_lake(is_slippery=False)
    start, info = env.reset(seed=0)
    assert env.step("dance") == ("That is not possible.", 0.0, False, False, info)
    assert env.step("go east")[0] != start


def test_taxi_is_played_within_its_range_and_won_by_the_drop_off(tmp_path: Path) -> None:
    env = NamedEnvironment(factory="prm_gym.envs.toy_text:taxi", reward_range=[-200, 20])
    rollout(env.tasks("valid_seen")[:40], RandomPolicy(), tmp_path, make_env=env, max_episode_steps=200, progress=False)
    won = 0
    for episode in read_episodes(tmp_path):
        won += episode.won
        total = 20 * episode.won - (episode.actions - episode.won)
        assert episode.total_reward == pytest.approx((total + 200) / 220, abs=1e-6)
    assert 0 < won < 40

"""Rollouts, branches and next actions on a local Ray cluster of several nodes, one of which is killed."""

from __future__ import annotations

import asyncio
import os
import time
from functools import partial
from pathlib import Path

import pytest
from ray_nodes import third_node_lost, two_nodes
from rollout_world import Corridor, Walker, content, make_games

from prm_gym.errors import UserError
from prm_gym.ray_cluster import Cluster
from prm_gym.rollout import in_processes, on_ray, rollout, rollout_branches
from prm_gym.rollout.monitoring import Summary
from prm_gym.types import PromptTooLong, State

GAMES, ROLLOUTS, SHARES, CONCURRENCY = 24, 4, 6, 2


def test_a_missing_ray_is_told_with_the_command(monkeypatch, tmp_path):
    monkeypatch.setattr("prm_gym.ray_cluster.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'ray: is not installed; pip install "prm-gym\[ray\]"'):
        on_ray(collect, tmp_path, Cluster())


@pytest.fixture(scope="module")
def cluster():
    with two_nodes(Path(__file__).parent) as nodes:
        yield nodes


class Logged(Corridor):
    """Notes every episode that begins, and takes 0.4 s to begin it."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def reset(self, **options):
        with (self.folder / "begun").open("a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(0.4)
        return super().reset(**options)


def collect(out: Path, share: tuple[int, int], folder: Path | None = None) -> Summary:
    make_env = partial(Logged, folder) if folder else Corridor
    options = {"concurrency": CONCURRENCY, "seed": 3, "progress": False}
    return rollout(
        make_games(GAMES), Walker(), out, rollouts_per_game=ROLLOUTS, share=share, make_env=make_env, **options
    )


def branch(parents: Path, out: Path, share: tuple[int, int]) -> Summary:
    options = {"make_env": Corridor, "seed": 3, "progress": False, "states_per_episode": 1}
    return rollout_branches(parents, make_games(GAMES), Walker(), out, share=share, **options)


def refuse(out: Path, share: tuple[int, int]) -> Summary:
    raise UserError("games", f"share {share[0]} of {share[1]} is refused", "do not ask")


def test_a_lost_node_costs_the_episodes_in_flight_and_the_store_is_that_of_one_process(cluster, tmp_path):
    alone = in_processes(collect, tmp_path / "one", 1)
    work = partial(collect, folder=tmp_path)
    with third_node_lost(cluster, lambda: len(list((tmp_path / "many").glob("share-*/part-*.parquet"))) >= 3):
        summary = on_ray(work, tmp_path / "many", Cluster(cluster.address, shares=SHARES))
    assert content(tmp_path / "many") == content(tmp_path / "one")
    begun = len((tmp_path / "begun").read_text().split())
    assert summary.resumed > 0, "the share of the lost node went on"
    assert alone.episodes <= begun < alone.episodes + GAMES * ROLLOUTS // SHARES
    assert not list((tmp_path / "many").glob("share-[0-9]*/"))


def test_a_store_that_is_complete_is_not_played_again_and_more_shares_add_to_it(cluster, tmp_path):
    on_ray(collect, tmp_path / "out", Cluster(cluster.address, shares=2))
    before = content(tmp_path / "out")
    again = on_ray(collect, tmp_path / "out", Cluster(cluster.address, shares=3))
    assert (again.resumed, again.episodes) == (GAMES * ROLLOUTS, 0)
    assert content(tmp_path / "out") == before


def test_branches_are_those_of_one_process(cluster, tmp_path):
    in_processes(collect, tmp_path / "parents", 1)
    work = partial(branch, tmp_path / "parents")
    in_processes(work, tmp_path / "one", 1)
    on_ray(work, tmp_path / "many", Cluster(cluster.address, shares=3))
    assert content(tmp_path / "many") == content(tmp_path / "one")


def test_an_error_of_a_share_is_raised_as_it_was(cluster, tmp_path):
    with pytest.raises(UserError, match=r"games: share \d of 2 is refused; do not ask"):
        on_ray(refuse, tmp_path, Cluster(cluster.address, shares=2))


class Short(Walker):
    async def act(self, state, *, n=1, seed=0):
        if state.turn:
            raise PromptTooLong("too long")
        return await super().act(state, n=n, seed=seed)


def test_next_actions_are_those_of_the_policy_in_process(cluster):
    from prm_gym.policies.on_ray import RayPolicy

    async def all_of(policy):
        states = [State("g", "t", (f"o{i}",), (), ("look",)) for i in range(20)]
        asked = (policy.act(state, n=2, seed=i) for i, state in enumerate(states))
        found = [response.action for responses in await asyncio.gather(*asked) for response in responses]
        with pytest.raises(PromptTooLong):
            await policy.act(State("g", "t", ("a", "b"), ("c",), None))
        return found, await policy.settings()

    # More actors than the cluster has processors: those that never begin are not asked.
    remote = RayPolicy(Short, "walker", Cluster(cluster.address, shares=4), 8)
    try:
        assert asyncio.run(all_of(remote)) == asyncio.run(all_of(Short()))
    finally:
        asyncio.run(remote.close())


class Refused(Short):
    def __init__(self):
        raise UserError("policy", "no such model", "name another")


def test_an_error_of_the_factory_is_raised_as_it_was(cluster):
    from prm_gym.policies.on_ray import RayPolicy

    remote = RayPolicy(Refused, "walker", Cluster(cluster.address, shares=1), 8)
    try:
        with pytest.raises(UserError, match="policy: no such model; name another"):
            asyncio.run(remote.settings())
    finally:
        asyncio.run(remote.close())

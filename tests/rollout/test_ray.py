"""Rollouts, branches and next actions on a local Ray cluster of several nodes, one of which is killed."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from functools import partial
from pathlib import Path

import pytest
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


# A busy machine takes long to start processes.
PATIENCE = {
    "RAY_raylet_start_wait_time_s": "300",
    "RAY_worker_register_timeout_seconds": "300",
    "RAY_agent_register_timeout_ms": "300000",
    "RAY_health_check_timeout_ms": "60000",
}


def node() -> dict[str, int]:
    """The arguments of a node of one processor. Where Ray chooses the ports, it waits for them 15 s at most."""
    ports = ("metrics_agent_port", "runtime_env_agent_port", "dashboard_agent_listen_port", "metrics_export_port")
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in ports]
    found = dict(zip(ports, (each.getsockname()[1] for each in sockets), strict=True))
    for each in sockets:
        each.close()
    return {"num_cpus": 1, **found}


@pytest.fixture(scope="module")
def cluster():
    os.environ.update(PATIENCE)
    # Workers of other nodes import the tests from here.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'prm-gym[ray]'")
    from ray.cluster_utils import Cluster as Nodes

    nodes = Nodes(initialize_head=True, head_node_args={"include_dashboard": False, **node()})
    nodes.add_node(**node())
    nodes.wait_for_nodes(timeout=300)
    yield nodes
    ray.shutdown()
    nodes.shutdown()


class Logged(Corridor):
    """Notes every episode that begins, and plays slowly while the file `slow` is there."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def reset(self, **options):
        with (self.folder / "begun").open("a") as file:
            file.write(f"{os.getpid()}\n")
        if (self.folder / "slow").exists():
            time.sleep(0.3)
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
    (tmp_path / "slow").touch()
    lost = cluster.add_node(**node())
    killed = []

    def kill() -> None:
        while len(list((tmp_path / "many").glob("share-*/part-*.parquet"))) < 3:
            time.sleep(0.1)
        cluster.remove_node(lost, allow_graceful=False)
        (tmp_path / "slow").unlink()
        killed.append(True)

    thread = threading.Thread(target=kill)
    thread.start()
    work = partial(collect, folder=tmp_path)
    summary = on_ray(work, tmp_path / "many", Cluster(cluster.address, shares=SHARES))
    thread.join()
    assert killed
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

    remote = RayPolicy(Short, "walker", Cluster(cluster.address, shares=2), 8)
    try:
        assert asyncio.run(all_of(remote)) == asyncio.run(all_of(Short()))
    finally:
        asyncio.run(remote.close())

"""Rollouts against a server with faults of every kind: no episode lost or duplicated, every fault counted."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

pytest.importorskip("httpx")

from faulty_server import FAULTS, FaultyServer, Letters
from rollout_world import Corridor, content, make_games

from prm_gym.policies.server import ServerPolicy
from prm_gym.rollout import collect


def rollouts(out, share, servers=1, seed=0):
    """The episodes of 72 rollouts, the summary, and the faults that the servers gave."""

    async def main():
        several = [FaultyServer(share, seed + number) for number in range(servers)]
        for server in several:
            await server.__aenter__()
        urls = [server.url for server in several]
        policy = ServerPolicy(urls, "tiny", prompt="full", tokenizer=Letters(), timeout=3, backoff=0.01)
        options = {"rollouts_per_game": 6, "make_env": Corridor, "progress": False}
        summary = await collect(make_games(12), policy, out, **options)
        await policy.close()
        for server in several:
            await server.__aexit__()
        return content(out), summary, sum((server.given for server in several), start=Counter())

    return asyncio.run(asyncio.wait_for(main(), 120))


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The episodes of a server without faults."""
    episodes, summary, given = rollouts(tmp_path_factory.mktemp("clean"), 0.0)
    assert len(episodes) == 72
    assert not given
    assert not summary.faults
    return episodes


@pytest.mark.parametrize(("seed", "servers"), [(0, 1), (1, 1), (2, 3)])
def test_under_ten_percent_faults_nothing_is_lost_or_doubled_and_each_fault_counts(tmp_path, expected, seed, servers):
    episodes, summary, given = rollouts(tmp_path, 0.1, servers, seed)
    assert episodes == expected  # `content` raises for an episode that is there twice
    assert summary.failures == 0
    assert summary.faults == given
    assert given.keys() == set(FAULTS.values())
    assert f"; {given.total()} server faults (" in summary.line()


def test_a_server_that_only_gives_faults_is_left_for_another(tmp_path):
    async def main():
        async with FaultyServer(1.0) as broken, FaultyServer(0.0) as sound:
            urls = [broken.url, sound.url]
            policy = ServerPolicy(urls, "tiny", prompt="full", tokenizer=Letters(), timeout=3, backoff=0.01)
            summary = await collect(make_games(12), policy, tmp_path, make_env=Corridor, progress=False)
            await policy.close()
            return summary, broken.given.total(), sound.answers

    summary, wrong, right = asyncio.run(asyncio.wait_for(main(), 60))
    assert summary.failures == 0
    assert wrong < right / 2

"""The simulation of rollouts on a cluster, where its result is known in closed form."""

from __future__ import annotations

import math
import random

import pytest
from ray_simulation import TURNS, Costs, share_seconds, simulate

FREE = Costs(request=0.0, first=0.0, later=0.0, task=0.0, merge_row=0.0)


def test_without_latency_a_share_takes_the_cpu_time_of_its_requests():
    assert share_seconds(10, 3, 0.5e-3, 0.0, 1.0, seed=0) == pytest.approx(10 * TURNS * 0.5e-3)


def test_one_request_at_a_time_takes_the_sum_of_latencies_and_cpu_time():
    draw = random.Random(7)
    latencies = sum(draw.lognormvariate(math.log(2.0) - 0.5**2 / 2, 0.5) for _ in range(4 * TURNS))
    assert share_seconds(4, 1, 1e-3, 2.0, 0.5, seed=7) == pytest.approx(latencies + 4 * TURNS * 1e-3)


def test_equal_latencies_make_rounds():
    """7 episodes, 3 at once, sigma 0: three rounds of 30 answers."""
    assert share_seconds(7, 3, 0.0, 2.0, 0.0, seed=0) == pytest.approx(3 * TURNS * 2.0)


def test_starts_hand_outs_and_the_merge_are_added():
    costs = Costs(request=0.0, first=5.0, later=1.0, task=0.25, merge_row=1e-3)
    # 4 shares of one episode on 2 workers: the last one is the second of its worker, which began a task later.
    seconds = simulate(costs, workers=2, shares=4, episodes=4, in_flight=8, mean=1.0, sigma=0.0)
    assert seconds == pytest.approx(5.0 + 0.25 + 2 * TURNS + 1.0 + 4 * (TURNS + 1) * 1e-3)


def test_shares_go_to_the_next_free_worker():
    """Three equal shares on two workers take two rounds, four take two as well."""
    three, four = (simulate(FREE, 2, shares, 4 * shares, 4, 1.0, 0.0) for shares in (3, 4))
    assert three == four == pytest.approx(2 * TURNS)

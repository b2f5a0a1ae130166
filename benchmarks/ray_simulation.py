"""A simulation of rollouts on a Ray cluster, from costs that `ray_scaling.py` measures. Assumptions:

- A worker has a processor of its own. It handles one answer at a time, for the CPU time of a request; a finished
  episode is followed by the next one, so a share keeps `in_flight` requests open until its last episodes.
- Every episode has 30 turns. Answers take a log-normal time, however many requests are open: each node comes with as
  many GPUs as that takes.
- Shares of equal size go to the next free worker. Shares are handed out one after the other. At the end the caller
  merges their parts on one processor, in proportion to the rows.
- The file system is as fast as that of the machine where the costs were measured, and no node is lost.
"""

from __future__ import annotations

import heapq
import math
import random
from dataclasses import dataclass

TURNS = 30


@dataclass(frozen=True)
class Costs:
    """What the simulation takes from the measurements, in seconds."""

    request: float  # CPU of a client
    first: float  # from the call to the begin of a worker's first share
    later: float  # from the end of a share to the begin of the next one on the same worker
    task: float  # to hand out one task
    merge_row: float  # to merge the shares, a row


def share_seconds(episodes: int, in_flight: int, request: float, mean: float, sigma: float, seed: int) -> float:
    """The time in which one worker plays `episodes`: answers come after their latency and are handled in turn."""
    draw, location = random.Random(seed).lognormvariate, math.log(mean) - sigma**2 / 2 if mean else 0.0
    free = 0.0  # when the worker has handled all answers so far
    answers = []  # (time, turns left of the episode)
    waiting = episodes
    for _ in range(min(in_flight, episodes)):
        waiting -= 1
        answers.append((draw(location, sigma) if mean else 0.0, TURNS))
    heapq.heapify(answers)
    while answers:
        at, turns = answers[0]
        free = max(at, free) + request
        if turns == 1:
            if not waiting:
                heapq.heappop(answers)
                continue
            waiting -= 1
            turns = TURNS + 1
        heapq.heapreplace(answers, (free + (draw(location, sigma) if mean else 0.0), turns - 1))
    return free


def simulate(
    costs: Costs, workers: int, shares: int, episodes: int, in_flight: int, mean: float, sigma: float
) -> float:
    """The seconds of a rollout on a cluster. At most 16 shares of a size are simulated, and used in turn."""
    sizes = [len(range(i, episodes, shares)) for i in range(shares)]
    played: dict[int, list[float]] = {}
    for size in set(sizes):
        seeds = range(min(16, sizes.count(size)))
        played[size] = [share_seconds(size, in_flight, costs.request, mean, sigma, seed) for seed in seeds]
    free = [(costs.first, 0)] * min(workers, shares)  # (time, number of shares) of each worker
    heapq.heapify(free)
    for i, size in enumerate(sizes):
        at, before = free[0]
        begun = max(at + (costs.later if before else 0.0), costs.first + i * costs.task)
        seconds = played[size][i % len(played[size])]
        heapq.heapreplace(free, (begun + seconds, before + 1))
    return max(at for at, _ in free) + costs.merge_row * episodes * (TURNS + 1)

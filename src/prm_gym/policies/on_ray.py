"""A policy on a Ray cluster: every request goes to one of several actors, each with a policy of its own.

This is for requests without episodes, such as the next actions of `labels.inverse`. If an actor or its node is lost,
Ray starts the actor again elsewhere and repeats the requests that it had.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import cycle
from typing import Any

from prm_gym.ray_cluster import RETRIES, Cluster, connect, raised, shares_of
from prm_gym.types import Policy, Response, State


class RayPolicy:
    """Policies that `make_policy` makes, one for each share of the cluster.

    Parameters
    ----------
    make_policy: a picklable function without arguments; nodes must have what it reads at the same path.
    concurrency: requests at once in one actor.

    Raises `UserError` as `ray_cluster.connect`. `act` raises what the policy raises.
    """

    def __init__(self, make_policy: Callable[[], Policy], policy_id: str, cluster: Cluster, concurrency: int) -> None:
        self.policy_id = policy_id
        self._ray = connect(cluster)
        options = {"max_restarts": -1, "max_task_retries": RETRIES, "max_concurrency": concurrency}
        actor = self._ray.remote(num_cpus=1, num_gpus=cluster.gpus, **options)(_Actor)
        self._actors = [actor.remote(make_policy, os.getcwd()) for _ in range(shares_of(cluster, self._ray))]
        self._next = cycle(self._actors)

    async def settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = await self._ask(self._actors[0].settings)
        return settings

    async def act(self, state: State, *, n: int = 1, seed: int = 0) -> list[Response]:
        responses: list[Response] = await self._ask(next(self._next).act, state, n, seed)
        return responses

    async def close(self) -> None:
        for actor in self._actors:
            self._ray.kill(actor)
        self._actors = []

    async def _ask(self, method: Any, *arguments: Any) -> Any:
        try:
            return await method.remote(*arguments)
        except self._ray.exceptions.RayError as error:
            raise raised(error) from error


class _Actor:
    """Runs in a process of the cluster."""

    def __init__(self, make_policy: Callable[[], Policy], here: str) -> None:
        os.chdir(here)
        self._policy = make_policy()

    async def settings(self) -> dict[str, Any]:
        return await self._policy.settings()

    async def act(self, state: State, n: int, seed: int) -> list[Response]:
        return await self._policy.act(state, n=n, seed=seed)

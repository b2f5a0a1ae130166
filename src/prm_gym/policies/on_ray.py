"""A policy on a Ray cluster: every request goes to one of several actors, each with a policy of its own.

This is for requests without episodes, such as the next actions of `labels.inverse`. Only actors that have begun are
asked, so that a cluster with fewer processors than actors works too. If an actor or its node is lost, its requests are
repeated by the others, and a new actor begins wherever a processor is free.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import Any

from prm_gym.ray_cluster import RETRIES, Cluster, connect, raised, shares_of
from prm_gym.types import Policy, Response, State

_BETWEEN_LOOKS = 1.0  # seconds, for actors that have begun


class RayPolicy:
    """Policies that `make_policy` makes, one for each share of the cluster.

    Parameters
    ----------
    make_policy: a picklable function without arguments; nodes must have what it reads at the same path.
    concurrency: requests at once in one actor.

    Raises `UserError` as `ray_cluster.connect`. `act` raises what the policy raises, and `UserError` when `RETRIES`
    actors were lost.
    """

    def __init__(self, make_policy: Callable[[], Policy], policy_id: str, cluster: Cluster, concurrency: int) -> None:
        self.policy_id = policy_id
        self._ray = connect(cluster)
        options = {"num_cpus": 1, "num_gpus": cluster.gpus, "max_concurrency": concurrency}
        self._actor = self._ray.remote(**options)(_Actor)
        self._begin = make_policy, os.getcwd()
        self._beginning: dict[Any, Any] = {}  # the actor of each `begin` that has not returned
        self._ready: list[Any] = []
        self._asked = self._lost = 0
        self._looked = 0.0  # time.monotonic()
        for _ in range(shares_of(cluster, self._ray)):
            self._start()

    async def settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = await self._ask("settings")
        return settings

    async def act(self, state: State, *, n: int = 1, seed: int = 0) -> list[Response]:
        responses: list[Response] = await self._ask("act", state, n, seed)
        return responses

    async def close(self) -> None:
        for actor in (*self._ready, *self._beginning.values()):
            self._ray.kill(actor)
        self._ready, self._beginning = [], {}

    async def _ask(self, method: str, *arguments: Any) -> Any:
        while True:
            actor = await self._choose()
            try:
                return await getattr(actor, method).remote(*arguments)
            except self._ray.exceptions.RayActorError as error:
                if actor in self._ready:  # the first of its requests that fails
                    self._ready.remove(actor)
                    self._replace(error)
            except self._ray.exceptions.RayError as error:
                raise raised(error) from error

    async def _choose(self) -> Any:
        """The actors that have begun, in turn."""
        while True:
            if self._beginning and (not self._ready or time.monotonic() - self._looked > _BETWEEN_LOOKS):
                self._look()
            if self._ready:
                self._asked += 1
                return self._ready[self._asked % len(self._ready)]
            await asyncio.sleep(0.1)

    def _look(self) -> None:
        """Find the actors that have begun. Raises what `make_policy` raised."""
        self._looked = time.monotonic()
        for begun in self._ray.wait(list(self._beginning), num_returns=len(self._beginning), timeout=0)[0]:
            actor = self._beginning.pop(begun)
            try:
                self._ray.get(begun)
            except self._ray.exceptions.RayActorError as error:
                self._replace(error)
            except self._ray.exceptions.RayError as error:
                raise raised(error) from error
            else:
                self._ready.append(actor)

    def _replace(self, error: Exception) -> None:
        self._lost += 1
        if self._lost > RETRIES:
            raise raised(error) from error
        self._start()

    def _start(self) -> None:
        actor = self._actor.remote()
        self._beginning[actor.begin.remote(*self._begin)] = actor


class _Actor:
    """Runs in a process of the cluster."""

    async def begin(self, make_policy: Callable[[], Policy], here: str) -> None:
        os.chdir(here)
        self._policy = make_policy()

    async def settings(self) -> dict[str, Any]:
        return await self._policy.settings()

    async def act(self, state: State, n: int, seed: int) -> list[Response]:
        return await self._policy.act(state, n=n, seed=seed)

"""Best-of-N: the policy proposes, a scorer of Q(s, a) chooses.

This is how the paper reads a process reward model at test time: BoN(pi, Q).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

from prm_gym.errors import UserError
from prm_gym.types import Policy, Response, State


class Scorer(Protocol):
    """Says how good actions are: Q(s, a), higher is better. Any number of `score` calls may be under way at once."""

    async def settings(self) -> dict[str, Any]:
        """All that its scores depend on, as JSON values (see `provenance`)."""
        ...

    async def score(self, pairs: Sequence[tuple[State, Response]]) -> list[float]: ...

    async def close(self) -> None: ...


class BestOfN:
    """Samples `n` responses of `policy` and gives the one whose action `scorer` likes best.

    Of responses with the same environment action the first sampled stands for all, so no action is scored twice; of
    equal scores the first sampled wins.
    """

    def __init__(self, policy: Policy, scorer: Scorer, n: int = 16, *, policy_id: str | None = None) -> None:
        if n < 1:
            raise UserError("n", f"{n} is not a positive number", "say 1 or more")
        self.policy_id = f"best_of_{n}({policy.policy_id})" if policy_id is None else policy_id
        self._policy, self._scorer, self._n = policy, scorer, n

    async def settings(self) -> dict[str, Any]:
        policy, scorer = await self._policy.settings(), await self._scorer.settings()
        return {"kind": "best_of_n", "n": self._n, "policy": policy, "scorer": scorer}

    async def act(self, state: State, *, n: int = 1, seed: int = 0) -> list[Response]:
        """`n` choices, each the best of a draw of its own (servers give sample i of a draw the seed `seed` + i)."""
        return list(await asyncio.gather(*(self._choose(state, seed + draw * self._n) for draw in range(n))))

    async def close(self) -> None:
        await self._policy.close()
        await self._scorer.close()

    async def _choose(self, state: State, seed: int) -> Response:
        candidates: dict[str, Response] = {}
        for response in await self._policy.act(state, n=self._n, seed=seed):
            candidates.setdefault(response.action, response)
        different = list(candidates.values())
        if len(different) == 1:
            return different[0]
        scores = await self._scorer.score([(state, response) for response in different])
        return different[max(range(len(different)), key=scores.__getitem__)]

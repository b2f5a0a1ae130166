"""w Q(s, a) as the reward of a step, for hosts with an event loop of their own, with several, or with none.

A sum of such rewards grows with the length of an episode, and a policy may learn to be slow: keep w small against the
reward of winning divided by the longest episode, or use a host that takes the last reward alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from threading import Thread

from prm_gym.errors import check_range
from prm_gym.prm.scorer import Scorer
from prm_gym.types import PromptTooLong, Response, State

Pairs = Sequence[tuple[State, Response]]


class StepQ:
    """`weight` times Q(s, a) by `scorer`, which runs in an event loop on a thread of its own."""

    def __init__(self, scorer: Scorer, weight: float) -> None:
        check_range("weight", weight, least=0)
        self._scorer, self._weight = scorer, weight
        self._loop = asyncio.new_event_loop()
        Thread(target=self._loop.run_forever, name="prm_gym-q", daemon=True).start()

    def rewards(self, pairs: Pairs) -> list[float]:
        """One reward for each pair; 0 where the history is over Q's context."""
        return asyncio.run_coroutine_threadsafe(self._scored(pairs), self._loop).result()

    async def rewards_async(self, pairs: Pairs) -> list[float]:
        """As `rewards`, for a caller in any event loop."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._scored(pairs), self._loop))

    async def _scored(self, pairs: Pairs) -> list[float]:
        try:
            return [self._weight * q for q in await self._scorer.score(pairs)] if pairs else []
        except PromptTooLong:
            if len(pairs) == 1:
                return [0.0]
            return [reward for pair in pairs for reward in await self._scored([pair])]


def configured(prm: str, weight: float) -> StepQ | None:
    """The Q of a host's configuration: that of the folder `prm`, in this process; None without one."""
    if not prm:
        return None
    from prm_gym.prm.in_process import PRMScorer

    return StepQ(PRMScorer(prm), weight)

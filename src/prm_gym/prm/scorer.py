"""The interface of a process reward model: Q(s, a) in [0, 1], and logit Q, the raw score of its head.

logit Q = log(Q / (1 - Q)), so Q is the sigmoid of the raw score. Both order actions alike, but only the logit tells
actions apart where Q rounds to 0 or 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

from prm_gym.types import Response, State


class Scorer(Protocol):
    """Scores actions, higher is better. Calls may be concurrent."""

    async def settings(self) -> dict[str, Any]:
        """Everything that the scores depend on, as JSON values (see `provenance`)."""
        ...

    async def logits(self, pairs: Sequence[tuple[State, Response]]) -> list[float]:
        """logit Q(s, a) of each pair: the raw score, any real number."""
        ...

    async def score(self, pairs: Sequence[tuple[State, Response]]) -> list[float]:
        """Q(s, a) in [0, 1] of each pair."""
        return [sigmoid(logit) for logit in await self.logits(pairs)]

    async def close(self) -> None: ...


def sigmoid(logit: float) -> float:
    """1 / (1 + exp(-logit)), for any float."""
    return 0.5 * (1 + math.tanh(0.5 * logit))

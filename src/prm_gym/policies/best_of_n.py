"""Best-of-N: the policy samples N responses, and Q(s, a) of a process reward model chooses one.

Among the distinct actions of the N responses, the chosen one is

    argmax_a Q(s, a)                                weight 0: how the paper reads Q at test time, BoN(pi, Q)
    argmax_a logit Q(s, a) + weight * log pi(a|s)   weight > 0

A maximum over an inexact Q favours actions that Q overrates, and Q errs most on actions that the policy rarely takes,
because its training data hold few of them. log pi corrects for that. The second line is the likeliest action under
pi(a|s) exp(logit Q(s, a) / weight), the optimum of the paper's Eq. 3 (expected reward less beta times the KL divergence
from pi) at one state, with logit Q as the reward and beta = weight. logit Q is the raw score of the PRM's head, the
reward that Stage 3 maximises too.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from typing import Any

import numpy as np

from prm_gym.errors import UserError
from prm_gym.prm.scorer import Scorer
from prm_gym.types import Policy, Response, State

AMONG = ("all", "admissible")
_MODE = re.compile(r"best_of_(\d+)(?:_weight([\d.e+-]+))?(_admissible)?")


@dataclass(frozen=True)
class BestOf:
    """How one of `n` responses is chosen: `weight` is that of log pi(a|s) beside logit Q; `among` all actions or the
    admissible ones only (all if none is admissible).
    """

    n: int = 16
    weight: float = 0.0
    among: str = "all"

    @property
    def mode(self) -> str:
        """The name in results.json, with every setting: `best_of_16`, `best_of_16_weight1_admissible`."""
        weight = f"_weight{repr(float(self.weight)).removesuffix('.0')}" if self.weight else ""
        return f"best_of_{self.n}{weight}{'_admissible' if self.among == 'admissible' else ''}"

    @classmethod
    def of_mode(cls, mode: str) -> BestOf | None:
        """The choice that `mode` names; None for another mode, such as `policy`."""
        match = _MODE.fullmatch(mode)
        return match and cls(int(match[1]), float(match[2] or 0), "admissible" if match[3] else "all")

    def candidates(self, state: State, responses: Sequence[Response]) -> list[Response]:
        """The first response with each distinct environment action, in the order sampled."""
        distinct: dict[str, Response] = {}
        for response in responses:
            distinct.setdefault(response.action, response)
        if self.among == "admissible":
            commands = set(state.admissible_commands or ())
            admissible = {action: response for action, response in distinct.items() if action.strip() in commands}
            distinct = admissible or distinct
        return list(distinct.values())

    def check(self, where: str | PathLike[str], prefix: str = "") -> None:
        """Raise `UserError` for the first value out of range; `prefix` comes before its name in `where`."""
        if self.n < 1:
            raise UserError(where, f"must be at least 1, got {self.n}", "say how many responses", field=f"{prefix}n")
        if not 0 <= self.weight < math.inf:
            problem = f"must be a number from 0 on, got {self.weight}"
            raise UserError(where, problem, "say 0 for Q alone", field=f"{prefix}weight")
        if self.among not in AMONG:
            problem = f"must be all or admissible, got '{self.among}'"
            raise UserError(where, problem, "correct it", field=f"{prefix}among")


class BestOfN:
    """Samples `n` responses of `policy` and returns the one whose action is best by `scorer`, as `BestOf` says.

    The first of several responses with the same environment action stands for all of them, so no action is scored
    twice. Ties go to the first sampled. The log-probability is that under `policy`.
    """

    def __init__(
        self,
        policy: Policy,
        scorer: Scorer,
        n: int = 16,
        *,
        weight: float = 0.0,
        among: str = "all",
        policy_id: str | None = None,
    ) -> None:
        self._choice = BestOf(n, weight, among)
        self._choice.check("best of N")
        self.policy_id = f"{self._choice.mode}({policy.policy_id})" if policy_id is None else policy_id
        self._policy, self._scorer = policy, scorer

    async def settings(self) -> dict[str, Any]:
        policy, scorer = await self._policy.settings(), await self._scorer.settings()
        return {"kind": "best_of_n", **asdict(self._choice), "policy": policy, "scorer": scorer}

    async def act(self, state: State, *, n: int = 1, seed: int = 0) -> list[Response]:
        """`n` choices, each the best of its own draw (servers give sample i of a draw the seed `seed` + i)."""
        draws = (self._choose(state, seed + draw * self._choice.n) for draw in range(n))
        return list(await asyncio.gather(*draws))

    async def close(self) -> None:
        await self._policy.close()
        await self._scorer.close()

    async def _choose(self, state: State, seed: int) -> Response:
        responses = await self._policy.act(state, n=self._choice.n, seed=seed)
        candidates = self._choice.candidates(state, responses)
        if len(candidates) == 1:
            return candidates[0]
        values = await self._scorer.logits([(state, response) for response in candidates])
        if self._choice.weight:
            log_pi = action_logprobs(responses)
            values = [
                logit + self._choice.weight * log_pi[response.action]
                for logit, response in zip(values, candidates, strict=True)
            ]
        return candidates[max(range(len(candidates)), key=values.__getitem__)]


def action_logprobs(responses: Sequence[Response]) -> dict[str, float]:
    """Estimate log pi(a|s), in nats, of each environment action among responses sampled at one state.

    pi(a|s) is the sum of pi(y|s) over all texts y that parse to a. If every response is its action alone, the distinct
    sampled texts cover nearly all of that sum, and the estimate is the log-sum-exp of their log-probabilities at
    temperature 1. If a response reasons first, the sum runs over every possible reasoning and a few samples cover next
    to none of it. Then, and if a log-probability is unknown, the estimate is the log of the action's share of the
    samples, which is pi at the sampling temperature.
    """
    if any(response.reason or response.logprob is None for response in responses):
        shares = Counter(response.action for response in responses)
        return {action: math.log(count / len(responses)) for action, count in shares.items()}
    texts: dict[str, dict[object, float]] = defaultdict(dict)
    for response in responses:
        assert response.logprob is not None
        texts[response.action][response.token_ids or response.text] = response.logprob
    return {action: float(np.logaddexp.reduce(list(of.values()))) for action, of in texts.items()}

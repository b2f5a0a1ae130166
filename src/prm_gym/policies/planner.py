"""Plan and execute (paper, section 4.3): imagine continuations, score them with Q, act, and plan again at every turn.

A plan is a sequence of actions a_0, ..., a_d from the present state. The policy proposes actions at every imagined
state, a world (`policies.worlds`) predicts the next observation, and Q scores the plan, as `value` says:

    last        logit Q(s_d, a_d)
    advantages  sum_i A(s_i, a_i), with A(s, a) = logit Q(s, a) - mean_{a' ~ pi} logit Q(s, a') over the sampled actions

and in both cases + weight * sum_i log pi(a_i | s_i). With `last`, Q compares the states that plans lead to. A Q trained
on targets (Eq. 1) can, but pairs of actions at one state (Bradley-Terry) determine Q only up to a constant of that
state. In A that constant cancels. The sum of advantages is what a plan gains over pi (the performance difference lemma,
Kakade and Langford 2002, here without discount and on the logit scale).

The best `width` plans of each length are extended by one step, up to `depth` imagined steps (beam search). The first
action of the best plan is taken. A plan that wins is taken at once, so the soonest win comes first. Depth 0 is
best-of-N.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from prm_gym.errors import UserError, check_range
from prm_gym.policies.best_of_n import BestOf, action_logprobs
from prm_gym.policies.worlds import World
from prm_gym.prm.scorer import Scorer
from prm_gym.types import Policy, PromptTooLong, Response, State

VALUES = ("last", "advantages")


@dataclass(frozen=True, slots=True)
class _Plan:
    """Actions up to `response`, which is chosen in the imagined state `state`; `first` is the action to take now."""

    first: Response
    state: State
    response: Response
    past: float  # the part of the value that a longer plan keeps
    value: float


class Planner:
    """Plays `policy` by planning `depth` steps ahead in `world`, with Q by `scorer`.

    `choice` says how many responses are sampled at every state, real or imagined, which of their actions count, and the
    weight of log pi. `width` plans of each length are kept. Costs up to 1 + depth * width times the samples of
    best-of-N.
    """

    def __init__(
        self,
        policy: Policy,
        scorer: Scorer,
        world: World,
        choice: BestOf,
        *,
        depth: int = 1,
        width: int = 4,
        value: str = "last",
    ) -> None:
        choice.check("planner")
        check_range("depth", depth, least=0)
        check_range("width", width, least=1)
        self._policy, self._scorer, self._world = policy, scorer, world
        if value not in VALUES:
            raise UserError("value", f"no value {value!r} of a plan", f"say {' or '.join(VALUES)}")
        self._choice, self._depth, self._width, self._value = choice, depth, width, value
        self.mode = f"{choice.mode}_depth{depth}_width{width}_{value}_in_{world.name}"
        self.policy_id = f"{self.mode}({policy.policy_id})"

    async def settings(self) -> dict[str, Any]:
        return {
            "kind": "planner",
            **asdict(self._choice),
            "depth": self._depth,
            "width": self._width,
            "value": self._value,
            "policy": await self._policy.settings(),
            "scorer": await self._scorer.settings(),
            "world": await self._world.settings(),
        }

    async def act(self, state: State, *, n: int = 1, seed: int = 0) -> list[Response]:
        """`n` choices, each the first action of a search of its own. Raises `PromptTooLong` at `state` alone."""
        return list(await asyncio.gather(*(self._search(state, seed + draw * self._choice.n) for draw in range(n))))

    async def close(self) -> None:
        await self._policy.close()
        await self._scorer.close()
        await self._world.close()

    async def _search(self, state: State, seed: int) -> Response:
        plans = await self._proposed(state, seed)
        if len(plans) == 1:  # nothing to choose
            return plans[0].first
        for step in range(self._depth):
            kept = sorted(plans, key=lambda plan: -plan.value)[: self._width]
            extended = await asyncio.gather(*(self._extended(plan, seed + step + 1) for plan in kept))
            for plan, further in zip(kept, extended, strict=True):
                if further is None:
                    return plan.first
            longer = [plan for further in extended for plan in further or ()]
            if not longer:  # every plan ends here: by the step limit, or at the model's context
                break
            plans = longer
        return max(plans, key=lambda plan: plan.value).first

    async def _extended(self, plan: _Plan, seed: int) -> Sequence[_Plan] | None:
        """The plans one step longer: none if the episode ends there, None if it is won."""
        try:
            imagined = await self._world.step(plan.state, plan.response, seed=seed)
            if imagined.over:
                return None if imagined.won else []
            return await self._proposed(imagined.state, seed, plan)
        except PromptTooLong:
            return []

    async def _proposed(self, state: State, seed: int, before: _Plan | None = None) -> list[_Plan]:
        responses = await self._policy.act(state, n=self._choice.n, seed=seed)
        candidates = self._choice.candidates(state, responses)
        if before is None and len(candidates) == 1:
            return [_Plan(candidates[0], state, candidates[0], 0.0, 0.0)]
        logits = await self._scorer.logits([(state, response) for response in candidates])
        weight = self._choice.weight
        log_pi = action_logprobs(responses) if weight else {}
        of_action = {response.action: logit for response, logit in zip(candidates, logits, strict=True)}
        mean = fmean(of_action[response.action] for response in responses if response.action in of_action)
        plans = []
        for response, logit in zip(candidates, logits, strict=True):
            past = (before.past if before else 0.0) + weight * log_pi.get(response.action, 0.0)
            if self._value == "advantages":
                past, logit = past + logit - mean, 0.0
            plans.append(_Plan(before.first if before else response, state, response, past, past + logit))
        return plans

"""The beginning of an episode: a reset and, in a branch, the parent's actions up to the branch point.

The parent's actions are replayed, and each observation is compared with the parent's. With `snapshot` and `restore`,
an environment replays them for the first branch at a state only; the other branches restore its snapshot.
"""

from __future__ import annotations

from asyncio import Future, get_running_loop
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from prm_gym.envs.contract import CheckedEnvironment, Shown, Task
from prm_gym.errors import UserError
from prm_gym.types import Episode, Response, StopReason, Turn, extend_key, state_key
from prm_gym.unicode import well_formed

_KEPT = 512  # snapshots: those of the most recent branch points


@dataclass(frozen=True, slots=True)
class Plan:
    """An episode to play. In a branch, the first `branch_turn` turns of `parent` are replayed, `chosen` is executed in
    place of the policy's own action, and the policy continues from there.
    """

    episode_id: str
    task: Task
    seed: int
    iteration: int
    parent: Episode | None = None
    branch_turn: int = 0
    chosen: Response | None = None


@dataclass(frozen=True, slots=True)
class Beginning:
    """The replayed turns, with the environment's own rewards, and what the environment shows after them."""

    sentence: str
    task_type: str
    turns: list[Turn]
    shown: Shown
    key: bytes


class Failed(Exception):
    """The episode cannot be finished. `stop_reason` names the cause (environment or policy), `turn` the place."""

    def __init__(self, stop_reason: StopReason, turn: int, error: Exception) -> None:
        super().__init__(str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}")
        self.stop_reason = stop_reason
        self.turn = turn


_Known: TypeAlias = "Future[tuple[Any, Beginning] | None]"


class Beginnings:
    """Begins episodes in `thread` and caches a snapshot of each branch point."""

    def __init__(self, thread: Executor) -> None:
        self._thread = thread
        self._known: dict[tuple[str, int], _Known] = {}

    async def begin(self, plan: Plan, env: CheckedEnvironment) -> Beginning:
        """Raises as `begin`."""
        loop = get_running_loop()
        if plan.parent is None or plan.branch_turn == 0 or not env.can_restore:
            return await loop.run_in_executor(self._thread, begin, plan, env)
        place = plan.parent.episode_id, plan.branch_turn
        if known := self._known.get(place):
            if saved := await known:
                snapshot, beginning = saved
                await loop.run_in_executor(self._thread, _restore, env, snapshot, plan)
                return replace(beginning, turns=list(beginning.turns))
            return await loop.run_in_executor(self._thread, begin, plan, env)
        mine = self._known[place] = loop.create_future()
        while len(self._known) > _KEPT:
            del self._known[next(iter(self._known))]
        try:
            saved = await loop.run_in_executor(self._thread, _begin_and_save, plan, env)
        except BaseException:
            mine.set_result(None)
            self._known.pop(place, None)
            raise
        mine.set_result(saved)
        return replace(saved[1], turns=list(saved[1].turns))


def begin(plan: Plan, env: CheckedEnvironment) -> Beginning:
    """Reset `env` and replay the parent's turns.

    Raises `Failed` if the environment fails or an observation differs from the parent's. Raises `UserError` if two
    replays differ from each other: such an environment cannot be branched at all.
    """
    try:
        shown = env.reset(plan.task)
        task, task_type = shown.info.get("task") or "", shown.info.get("task_type") or plan.task.task_type
    except UserError as error:
        raise Failed(StopReason.ENV_ERROR, 0, error) from error
    key = state_key(plan.task.game_id, [shown.observation], [])
    turns: list[Turn] = []
    for past in plan.parent.turns[: plan.branch_turn] if plan.parent else ():
        t = past.turn
        _compare(plan, env, t, shown)
        turn = replace(past, admissible_commands=shown.admissible_commands, state_key=key)
        try:
            shown, turn.reward, ended, cut_off = env.step(turn.action)
        except UserError as error:
            raise Failed(StopReason.ENV_ERROR, t, error) from error
        if ended or cut_off:
            assert plan.parent is not None
            problem = f"turn {t} of {plan.parent.episode_id} ends the episode, where its parent went on"
            raise Failed(StopReason.ENV_ERROR, t, UserError(env.name, problem, "collect the parents again"))
        turns.append(turn)
        key = extend_key(key, turn.action, shown.observation)
    if plan.parent is not None:
        _compare(plan, env, plan.branch_turn, shown)
    return Beginning(well_formed(str(task)), str(task_type), turns, shown, key)


def _compare(plan: Plan, env: CheckedEnvironment, turn: int, shown: Shown) -> None:
    """Raise unless `shown` is what the parent saw at `turn`: `UserError` if a second replay differs from `shown`."""
    assert plan.parent is not None
    if shown.observation == plan.parent.turns[turn].observation:
        return
    try:
        again = env.reset(plan.task)
        for past in plan.parent.turns[:turn]:
            again, *_ = env.step(past.action)
    except UserError as error:
        raise Failed(StopReason.ENV_ERROR, turn, error) from error
    if again.observation != shown.observation:
        problem = f"is random between equal resets (turn {turn} of {plan.parent.episode_id}), so it cannot be branched"
        raise UserError(env.name, problem, "let all chance depend on the seed of reset, or collect without branches")
    problem = f"turn {turn} of {plan.parent.episode_id} shows another observation than when it was collected"
    raise Failed(StopReason.ENV_ERROR, turn, UserError(env.name, problem, "collect the parents again"))


def _begin_and_save(plan: Plan, env: CheckedEnvironment) -> tuple[Any, Beginning]:
    beginning = begin(plan, env)
    try:
        return env.snapshot(), beginning
    except UserError as error:
        raise Failed(StopReason.ENV_ERROR, plan.branch_turn, error) from error


def _restore(env: CheckedEnvironment, snapshot: Any, plan: Plan) -> None:
    try:
        env.restore(snapshot, plan.task)
    except UserError as error:
        raise Failed(StopReason.ENV_ERROR, plan.branch_turn, error) from error

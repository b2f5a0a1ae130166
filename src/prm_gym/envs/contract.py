"""The contract between a text environment and the rollout.

An environment is a `gymnasium.Env` whose observations and actions are str. `info` may hold

    task                 the task's sentence (at reset)
    task_type            for the success rate by task type (at reset); by default that of the `Task`
    admissible_commands  a list of str. None or a missing key means unknown, unlike the empty list: prompts then list
                         no commands, and `action_valid` is null in the store
    won                  whether the task is done
    expert_action        the next command of the environment's expert, for demonstrations; prompts never show it

Rewards satisfy r_t >= 0 and sum_t r_t <= 1 over an episode, so that the return G_t = sum_{k >= t} gamma^(k-t) r_k of
Eq. 1 lies in [0, 1] from every turn on. Any other reward needs `reward_range` = (low, high), the bounds of the return
R = sum_t r_t. The last step is then rewarded with (R - low) / (high - low) and every other step with 0.

An episode is won if `info["won"]` of its last step is true or, without that key, if it terminated with a return of 1.
An episode that terminated without a win is lost. A truncated one ended at the step limit.

An environment may also have

    tasks(split) -> list[Task]    its tasks; without it, tasks are seeds for `reset`
    snapshot(), restore(snapshot) saves a state as a picklable value and returns to it; branches then replay no actions

Equal resets followed by equal actions must give equal observations. Chance that depends on the seed of `reset` is part
of the task. An environment with any other chance can be played, but not branched.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import gymnasium

from prm_gym.errors import UserError, first_line
from prm_gym.unicode import well_formed

TOLERANCE = 1e-6  # of sums of rewards, which the store keeps in single precision
ANY_REWARD = (-math.inf, math.inf)  # the `reward_range` of callers that do not rescale: rewards are finite numbers
RAISED = (Exception, SystemExit)  # some environments call exit()
_SHAPE = "return observation, reward, terminated, truncated, info from step, and observation, info from reset"


@dataclass(frozen=True, slots=True)
class Task:
    """The arguments of `reset` for one episode, and a name for them.

    `game_id` names the task in stores and datasets, and labels divide train from test by it. `digest` is the digest of
    content that is not in the arguments, such as a file.
    """

    game_id: str
    split: str
    task_type: str = ""
    seed: int | None = None
    options: dict[str, Any] | None = field(default=None, hash=False)
    digest: str = field(default="", compare=False)

    def reset_arguments(self) -> dict[str, Any]:
        return {"seed": self.seed, "options": self.options}

    def content(self) -> str:
        """Everything that the task sets, as a text for fingerprints."""
        return json.dumps([self.seed, self.options, self.digest], sort_keys=True, default=str)


class Environment(Protocol):
    """The part of `gymnasium.Env` that rollouts use."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]: ...
    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]: ...
    def close(self) -> None: ...


class Shown(NamedTuple):
    """An observation and its info, as well-formed Unicode. `admissible_commands` is None if they are unknown."""

    observation: str
    admissible_commands: list[str] | None
    info: dict[str, Any]


class CheckedEnvironment:
    """Checks that an environment keeps the contract. Raises `UserError` with its `name`, the problem and a remedy."""

    def __init__(self, env: Environment, name: str | None = None, reward_range: Sequence[float] | None = None) -> None:
        self._env = env
        spec = getattr(env, "spec", None)
        self.name = name or (spec.id if spec else type(env).__name__)
        self._range = reward_range
        self._return = 0.0
        self._lists_commands: bool | None = None  # None: not known yet
        self._snapshot, self._restore = method(env, "snapshot"), method(env, "restore")
        self.can_restore = self._snapshot is not None and self._restore is not None
        self._is_begun = False

    def reset(self, task: Task) -> Shown:
        """Begin an episode of `task`."""
        try:
            answer = self._env.reset(**task.reset_arguments())
        except RAISED as error:
            raise self._raised("reset", error) from error
        self._is_begun = True
        if not isinstance(answer, tuple) or len(answer) != 2:
            raise self._wrong(f"reset gave {_count(answer)}, not 2", _SHAPE)
        self._return = 0.0
        observation, info = answer
        self._lists_commands = None
        return self._shown(observation, info, at_end=False)

    def step(self, action: str) -> tuple[Shown, float, bool, bool]:
        """What is shown, the environment's own reward, terminated, truncated."""
        try:
            answer = self._env.step(action)
        except RAISED as error:
            raise self._raised("step", error) from error
        if not isinstance(answer, tuple) or len(answer) != 5:
            raise self._wrong(f"step gave {_count(answer)}, not 5", _SHAPE)
        observation, reward, terminated, truncated, info = answer
        if type(reward) is not float or not math.isfinite(reward):
            reward = self._number(reward)
        self._return += reward
        if self._range is None and (reward < 0 or self._return > 1 + TOLERANCE):
            problem = f"a reward of {reward:g}, {self._return:g} in sum, outside [0, 1]"
            raise self._wrong(problem, "state the bounds of an episode's return as reward_range")
        terminated, truncated = bool(terminated), bool(truncated)
        return self._shown(observation, info, at_end=terminated or truncated), reward, terminated, truncated

    def rescaled(self, rewards: list[float], *, cut_short: bool = False) -> list[float]:
        """The rewards of an episode, rescaled by `reward_range`; the same list if there is none.

        An episode that is `cut_short` pays 0, since costs that it did not come to would count as success.
        """
        if self._range is None or not rewards:
            return rewards
        if cut_short:
            return [0.0] * len(rewards)
        low, high = self._range
        total = math.fsum(rewards)
        slack = TOLERANCE * max(1.0, abs(low), abs(high))
        if not low - slack <= total <= high + slack:
            problem = f"an episode's return of {total:g} is outside of reward_range [{low:g}, {high:g}]"
            raise self._wrong(problem, "state bounds that every episode keeps")
        return [0.0] * (len(rewards) - 1) + [min(1.0, max(0.0, (total - low) / (high - low)))]

    def snapshot(self) -> Any:
        assert self._snapshot is not None
        try:
            return self._snapshot(), self._return, self._lists_commands
        except RAISED as error:
            raise self._raised("snapshot", error) from error

    def restore(self, snapshot: Any, task: Task) -> None:
        """Return to the state of `snapshot`, in an episode of `task`."""
        assert self._restore is not None
        if not self._is_begun:  # gymnasium's wrappers refuse to step before the first reset
            self.reset(task)
        state, self._return, self._lists_commands = snapshot
        try:
            self._restore(state)
        except RAISED as error:
            raise self._raised("restore", error) from error

    def close(self) -> None:
        with suppress(*RAISED):  # an error at the end loses nothing
            self._env.close()

    def _shown(self, observation: Any, info: dict[str, Any], *, at_end: bool) -> Shown:
        if not isinstance(observation, str):
            remedy = "return text, or wrap the environment in prm_gym.envs.described.Described"
            raise self._wrong(f"an observation of type {type(observation).__name__}, not str", remedy)
        if not isinstance(info, dict):
            raise self._wrong(f"info of type {type(info).__name__}, not dict", _SHAPE)
        if isinstance(won := info.get("won"), str):  # which is true, even "no"
            raise self._wrong(f"won is {won!r:.80}, not a bool", "give True or False")
        commands = info.get("admissible_commands")
        if self._lists_commands is None:
            self._lists_commands = commands is not None
        elif (commands is not None) is not self._lists_commands and not (at_end and commands is None):
            known, now = ("a list", "None") if self._lists_commands else ("None", type(commands).__name__)
            remedy = "give a list of str at every step, or None at every step"
            raise self._wrong(f"admissible_commands were {known} and are {now} now", remedy)
        if commands is not None:
            texts = _texts(commands)
            if texts is None:
                problem = f"admissible_commands are {_shortened(commands)}, not a list of str"
                raise self._wrong(problem, "give a list of str, or None where they are unknown")
            commands = texts
        return Shown(well_formed(observation), commands, info)

    def _number(self, reward: Any) -> float:
        try:
            value = float(reward)
        except (TypeError, ValueError):
            value = math.nan
        if not math.isfinite(value):
            raise self._wrong(f"a reward of {_shortened(reward)}", "return a finite number")
        return value

    def _wrong(self, problem: str, remedy: str) -> UserError:
        return UserError(self.name, problem, remedy)

    def _raised(self, method: str, error: BaseException) -> UserError:
        if isinstance(error, UserError):  # which names the problem already
            return error
        said = f"{method} raised {type(error).__name__}: {first_line(error)}"
        return self._wrong(said, "correct the environment, then give the same command again")


def method(env: object, name: str) -> Callable[..., Any] | None:
    """The method `name` of an environment or of what its wrappers wrap; None if it has none."""
    if isinstance(env, gymnasium.Env):
        found: Callable[..., Any] | None = env.get_wrapper_attr(name) if env.has_wrapper_attr(name) else None
        return found
    return getattr(env, name, None)


def is_won(info: Mapping[str, Any], terminated: bool, rewards: Sequence[float]) -> bool:
    """Whether an episode was won, by the `info` of its last step, or else by its (rescaled) rewards."""
    if "won" in info:
        return bool(info["won"])
    return terminated and math.fsum(rewards) >= 1 - TOLERANCE


def _texts(values: Any) -> list[str] | None:
    """A list of str with its texts well formed; None for anything else."""
    if not isinstance(values, list | tuple):
        return None
    try:
        if "".join(values).isascii():  # nearly always, and quicker than to look at each
            return list(values)
    except TypeError:
        return None
    return [well_formed(value) for value in values]


def _shortened(value: Any) -> str:
    return " ".join(repr(value).split())[:80]


def _count(answer: Any) -> str:
    return f"{len(answer)} values" if isinstance(answer, tuple) else f"one {type(answer).__name__}"

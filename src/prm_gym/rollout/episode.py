"""One episode: the environment and the policy take turns until the game is won or cut off.

A `Plan` names everything the episode depends on, so the same plan, environment and deterministic policy give the
same episode, whenever and beside whatever others it is played. Episode ids and seeds are hashes of what they stand
for; no counter and no clock enters them.
"""

from __future__ import annotations

import json
from asyncio import get_running_loop
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any, Protocol

from prm_gym.envs.games import Game
from prm_gym.errors import UserError
from prm_gym.types import Episode, Policy, PromptTooLong, Response, State, StopReason, Turn, extend_key, state_key
from prm_gym.unicode import well_formed


class Environment(Protocol):
    """The part of `gymnasium.Env` that a rollout uses."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]: ...
    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Plan:
    """An episode to be played. With a `parent`, its first `branch_turn` turns are replayed, then `chosen` is executed
    in place of the policy's own action, and the policy goes on from there.
    """

    episode_id: str
    game: Game
    seed: int
    iteration: int
    parent: Episode | None = None
    branch_turn: int = 0
    chosen: Response | None = None


class Failed(Exception):
    """The episode cannot be finished. `stop_reason` says whose fault it was, `turn` where it happened."""

    def __init__(self, stop_reason: StopReason, turn: int, error: Exception) -> None:
        super().__init__(f"{type(error).__name__}: {error}")
        self.stop_reason = stop_reason
        self.turn = turn


def hash_id(*parts: object) -> str:
    """24 hex digits that stand for `parts`."""
    return blake2b(json.dumps(parts).encode(), digest_size=12).hexdigest()


def hash_seed(*parts: object) -> int:
    """A seed in [0, 2^31), which every backend accepts, that depends on all of `parts`."""
    return int.from_bytes(blake2b(json.dumps(parts).encode(), digest_size=8).digest(), "big") >> 33


async def play(
    plan: Plan, env: Environment, policy: Policy, *, thread: Executor, on_response: Callable[[Response], None]
) -> Episode:
    """Play `plan` to its end and return the whole episode. Steps run in the event loop (the exact engine takes about
    100 microseconds), loading a game in `thread`.

    Raises `Failed` when the environment or the policy fails; a `UserError` of the policy passes, as it would meet
    every other episode too (a wrong key, an unknown model).
    """
    game = plan.game
    history = plan.parent.turns[: plan.branch_turn] if plan.parent else []
    turns: list[Turn] = []
    try:
        reset = get_running_loop().run_in_executor(thread, lambda: env.reset(options={"game_file": str(game.path)}))
        observation, commands, info = _seen(*await reset)
        task, task_type = well_formed(str(info["task"])), str(info["task_type"])
    except Exception as error:  # whatever a broken game file raises ends this episode alone
        raise Failed(StopReason.ENV_ERROR, 0, error) from error
    key = state_key(game.game_id, [observation], [])

    while True:
        t = len(turns)
        turn = Turn(turn=t, observation=observation, admissible_commands=commands, state_key=key)
        turns.append(turn)
        if t and (turns[-2].terminated or turns[-2].truncated):
            stop = StopReason.WON if turns[-2].terminated else StopReason.STEP_LIMIT
            break
        if t < len(history):
            past = history[t]
            if past.observation != observation:
                mismatch = ValueError(f"turn {t} of {plan.parent and plan.parent.episode_id} shows another observation")
                raise Failed(StopReason.ENV_ERROR, t, mismatch)
            turns[-1] = turn = replace(past, admissible_commands=commands, state_key=key)
        else:
            if t == plan.branch_turn and plan.chosen is not None:
                response = plan.chosen
            else:
                state = _state(game.game_id, task, turns)
                try:
                    response = (await policy.act(state, n=1, seed=hash_seed(plan.seed, t)))[0]
                except PromptTooLong:
                    if t:
                        turns[-2].truncated = True
                    stop = StopReason.PROMPT_TOO_LONG
                    break
                except UserError:
                    raise
                except Exception as error:  # policies are anybody's code: one failure must not end the others
                    raise Failed(StopReason.POLICY_ERROR, t, error) from error
                on_response(response)
            turn.response, turn.reason, turn.action = response.text, response.reason, response.action
            turn.action_valid = response.action.strip() in commands
            turn.prompt_tokens, turn.response_tokens = response.prompt_tokens, response.response_tokens
            turn.logprob, turn.sampling_logprob = response.logprob, response.sampling_logprob
        try:
            observation, reward, terminated, truncated, info = env.step(turn.action)
            observation, commands, info = _seen(observation, info)
        except Exception as error:  # as above: the episode is lost, the run is not
            raise Failed(StopReason.ENV_ERROR, t, error) from error
        turn.reward, turn.terminated, turn.truncated = float(reward), bool(terminated), bool(truncated)
        key = extend_key(key, turn.action, observation)

    return Episode(
        episode_id=plan.episode_id,
        game_id=game.game_id,
        split=game.split,
        task=task,
        task_type=task_type,
        policy_id=policy.policy_id,
        iteration=plan.iteration,
        seed=plan.seed,
        stop_reason=stop.value,
        turns=turns,
        parent_id=plan.parent.episode_id if plan.parent else None,
        branch_turn=plan.branch_turn,
    )


def _seen(observation: str, info: dict[str, Any]) -> tuple[str, list[str], dict[str, Any]]:
    """What an environment shows, well formed: the observation, the admissible commands, and `info` as it is."""
    return well_formed(observation), [well_formed(command) for command in info["admissible_commands"]], info


def _state(game_id: str, task: str, turns: list[Turn]) -> State:
    """The state at the last of `turns`, which has no action yet."""
    return State(
        game_id=game_id,
        task=task,
        observations=tuple(turn.observation for turn in turns),
        actions=tuple(turn.action for turn in turns[:-1]),
        admissible_commands=tuple(turns[-1].admissible_commands),
    )

"""One episode: the environment and the policy take turns until it ends or is truncated.

A `Plan` names everything the episode depends on, so the same plan, environment and deterministic policy give the same
episode at any time and any concurrency. Episode ids and seeds are hashes of the settings; no counter and no clock
enters them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from hashlib import blake2b

from prm_gym.envs.contract import CheckedEnvironment, Shown, is_won
from prm_gym.errors import UserError
from prm_gym.rollout.beginning import Beginnings, Failed, Plan
from prm_gym.types import Episode, Policy, PromptTooLong, Response, State, StopReason, Turn, extend_key


def hash_id(*parts: object) -> str:
    """The hash of `parts` in 24 hex digits."""
    return blake2b(json.dumps(parts).encode(), digest_size=12).hexdigest()


def hash_seed(*parts: object) -> int:
    """The hash of `parts` as a seed in [0, 2^31), which every backend accepts."""
    return int.from_bytes(blake2b(json.dumps(parts).encode(), digest_size=8).digest(), "big") >> 33


async def play(
    plan: Plan,
    env: CheckedEnvironment,
    policy: Policy,
    *,
    max_episode_steps: int,
    beginnings: Beginnings,
    on_response: Callable[[Response], None],
) -> Episode:
    """Play `plan` for at most `max_episode_steps` actions and return the whole episode. Steps run in the event loop
    (the exact engine takes about 100 microseconds); the beginning runs in a thread.

    Raises `Failed` when the environment or the policy fails. A `UserError` of the policy (a wrong key, an unknown
    model) is passed on, because it would end every other episode too.
    """
    task = plan.task
    began = await beginnings.begin(plan, env)
    turns, shown, key = began.turns, began.shown, began.key
    ended = cut_off = False
    stop: StopReason | None = None

    while True:
        t, commands = len(turns), shown.admissible_commands
        turn = Turn(turn=t, observation=shown.observation, admissible_commands=commands, state_key=key)
        turns.append(turn)
        if ended or cut_off:
            break
        if t == plan.branch_turn and plan.chosen is not None:
            response = plan.chosen
        else:
            try:
                state = _state(task.game_id, began.sentence, turns, shown)
                response = (await policy.act(state, n=1, seed=hash_seed(plan.seed, t)))[0]
            except PromptTooLong:
                if t:
                    turns[-2].truncated = True
                stop = StopReason.PROMPT_TOO_LONG
                break
            except UserError:
                raise
            except Exception as error:  # a policy is user code: its failure must not end the other episodes
                raise Failed(StopReason.POLICY_ERROR, t, error) from error
            on_response(response)
        turn.response, turn.reason, turn.action = response.text, response.reason, response.action
        turn.action_valid = None if commands is None else response.action.strip() in commands
        turn.prompt_tokens, turn.response_tokens = response.prompt_tokens, response.response_tokens
        turn.logprob, turn.sampling_logprob = response.logprob, response.sampling_logprob
        try:
            shown, turn.reward, ended, cut_off = env.step(turn.action)
        except UserError as error:  # which ends this episode only
            raise Failed(StopReason.ENV_ERROR, t, error) from error
        cut_off = cut_off or (not ended and t + 1 >= max_episode_steps)
        turn.terminated, turn.truncated = ended, cut_off
        key = extend_key(key, turn.action, shown.observation)

    paid = [turn.reward or 0.0 for turn in turns[:-1]]
    try:
        rewards = env.rescaled(paid, cut_short=stop is not None)
    except UserError as error:
        raise Failed(StopReason.ENV_ERROR, len(turns) - 1, error) from error
    if rewards is not paid:  # as copies: the turns of a parent are shared by its branches
        turns = [*(replace(turn, reward=reward) for turn, reward in zip(turns, rewards, strict=False)), turns[-1]]
    if stop is None:
        won = is_won(shown.info, ended, rewards)
        stop = StopReason.WON if won else StopReason.LOST if ended else StopReason.STEP_LIMIT
    return Episode(
        episode_id=plan.episode_id,
        game_id=task.game_id,
        split=task.split,
        task=began.sentence,
        task_type=began.task_type,
        policy_id=policy.policy_id,
        iteration=plan.iteration,
        seed=plan.seed,
        stop_reason=stop.value,
        turns=turns,
        parent_id=plan.parent.episode_id if plan.parent else None,
        branch_turn=plan.branch_turn,
    )


def _state(game_id: str, task: str, turns: list[Turn], shown: Shown) -> State:
    """The state at the last of `turns`, which has no action yet."""
    commands = shown.admissible_commands
    return State(
        game_id=game_id,
        task=task,
        observations=tuple(turn.observation for turn in turns),
        actions=tuple(turn.action for turn in turns[:-1]),
        admissible_commands=None if commands is None else tuple(commands),
        expert_action=shown.info.get("expert_action"),
        reasons=tuple(turn.reason for turn in turns[:-1]),
    )

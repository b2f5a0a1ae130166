"""The vocabulary of prm_gym, and the map of the package.

The data flow; each arrow is one module:

    game files -> envs -> rollout(policies) -> store (Parquet) -> labels (SQL) -> HF datasets -> hosts -> checkpoint
        ^                                                                                           |
        +------------------------------ next iteration, policy pi_i -------------------------------+

The packages; each imports only those above it (a test checks this):

    envs         text environments: ALFWorld, its exact engine, generated households
    prompts      state -> chat messages -> token ids; model text -> action
    provenance   the settings of an artefact, recorded and compared
    store        episodes on disk (Parquet)
    inference    language models: KV cache, batching, HTTP servers
    prm          Q(s, a), in this process or served
    policies     transformers, a server, the scripted expert, best-of-N
    rollout      collects episodes of a policy into the store
    labels       episodes to datasets (SQL); hosts: launch TRL and open-instruct; evaluation: success, quality of Q
    runs         runs a recipe, iteration by iteration
    report       an HTML report on runs
    cli          `prm-gym`; bridges: these environments and Q in other frameworks

The turn-level MDP of the paper (section 2.1): the state s_t is the history of observations and actions
o_0, a_0, ..., o_t, the action a_t is the environment action parsed out of the model's response, the reward is 1 on the
step that wins and 0 otherwise (ALFWorld), or as the environment gives it (`prm_gym.envs.contract`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from hashlib import blake2b
from typing import Any, Protocol, TypedDict

from prm_gym.unicode import well_formed

STATE_KEY_BYTES = 16


class Message(TypedDict):
    """One chat message, the form that TRL and open-instruct both read."""

    role: str
    content: str


class StopReason(str, Enum):
    """Why an episode ended. `WON` and `LOST` are terminal in the sense of the MDP; everything else is cut off."""

    WON = "won"  # the goal was reached
    LOST = "lost"  # the environment terminated without a win
    STEP_LIMIT = "step_limit"  # max_episode_steps actions without a win, or the environment truncated
    PROMPT_TOO_LONG = "prompt_too_long"  # the next prompt does not fit into the model's context
    POLICY_ERROR = "policy_error"  # the policy failed for good (after its retries)
    ENV_ERROR = "env_error"  # the environment failed


@dataclass(frozen=True, slots=True)
class State:
    """s_t: the task, the history, and the commands that the environment accepts.

    `observations` holds o_0..o_t (t+1 entries), `actions` a_0..a_{t-1} (t entries): environment actions as executed,
    without the reasoning. `admissible_commands` is None if unknown. `expert_action` is set during play by environments
    that have an expert; no prompt shows it. `reasons` holds the reasoning behind each of `actions`, or is empty. It is
    no part of the state; prompts with `shows_reasons` show it.
    """

    game_id: str
    task: str
    observations: tuple[str, ...]
    actions: tuple[str, ...]
    admissible_commands: tuple[str, ...] | None
    expert_action: str | None = field(default=None, compare=False)
    reasons: tuple[str, ...] = field(default=(), compare=False)

    @property
    def turn(self) -> int:
        return len(self.actions)

    @property
    def key(self) -> bytes:
        return state_key(self.game_id, self.observations, self.actions)


@dataclass(frozen=True, slots=True)
class Response:
    """One sampled response of a policy at a state. `token_ids` are the ids as sampled, if the policy knows them.

    The texts are made well formed (`unicode.well_formed`). `logprob` is the log-probability of the sampled tokens, the
    end-of-turn token included, at temperature 1; `sampling_logprob` is that under the sampling distribution. Both are
    in nats, None if unknown.
    """

    text: str
    reason: str
    action: str
    prompt_tokens: int = 0
    response_tokens: int = 0
    token_ids: tuple[int, ...] | None = None
    finished: bool = True  # False: cut off at the response limit, before the end-of-turn token
    logprob: float | None = None
    sampling_logprob: float | None = None

    def __post_init__(self) -> None:
        for name in ("text", "reason", "action"):
            object.__setattr__(self, name, well_formed(getattr(self, name)))


class PromptTooLong(Exception):
    """Raised by a policy when the prompt of a state leaves no room for a response. The episode ends with
    `StopReason.PROMPT_TOO_LONG`; prompts are never truncated.
    """


class Policy(Protocol):
    """Samples responses at states. Calls of `act` may be concurrent; the policy may batch them."""

    policy_id: str

    async def settings(self) -> dict[str, Any]:
        """Everything that the responses depend on besides the state and the seed, as JSON values (see `provenance`).

        A policy behind a server asks it, and leaves no connection open.
        """
        ...

    async def act(self, state: State, *, n: int = 1, seed: int = 0) -> list[Response]:
        """Sample `n` responses at `state`. Equal state and seed give equal responses, if the backend supports it."""
        ...

    async def close(self) -> None: ...


class ChatModel(Policy, Protocol):
    """A policy by a language model, which continues any other chat too."""

    async def reply(self, messages: Sequence[Message], *, n: int = 1, seed: int = 0) -> list[Response]:
        """Sample `n` responses to `messages`, parsed as the policy's own. Raises `PromptTooLong`."""
        ...


@dataclass(slots=True)
class Turn:
    """One row of the episode store. The last turn has the final observation, an empty action and reward None.

    `admissible_commands` and `action_valid` are None if the environment does not tell them.
    """

    turn: int
    observation: str
    admissible_commands: list[str] | None
    response: str = ""
    reason: str = ""
    action: str = ""
    action_valid: bool | None = False
    reward: float | None = None
    terminated: bool = False
    truncated: bool = False
    state_key: bytes = b""
    prompt_tokens: int = 0
    response_tokens: int = 0
    logprob: float | None = None  # as of `Response`
    sampling_logprob: float | None = None


@dataclass(slots=True)
class Episode:
    """One rollout. `parent_id` and `branch_turn` mark a branch: turns before `branch_turn` are the parent's."""

    episode_id: str
    game_id: str
    split: str
    task: str
    task_type: str
    policy_id: str
    iteration: int
    seed: int
    stop_reason: str
    turns: list[Turn] = field(default_factory=list)
    parent_id: str | None = None
    branch_turn: int = 0

    @property
    def won(self) -> bool:
        return self.stop_reason == StopReason.WON

    @property
    def total_reward(self) -> float:
        """The undiscounted return of the whole episode."""
        return math.fsum(turn.reward for turn in self.turns if turn.reward is not None)

    @property
    def actions(self) -> int:
        """How many actions were executed (the last turn has none)."""
        return sum(turn.reward is not None for turn in self.turns)

    def state_at(self, turn: int) -> State:
        """s_t of this episode, for 0 <= turn < len(turns)."""
        history = self.turns[: turn + 1]
        return State(
            game_id=self.game_id,
            task=self.task,
            observations=tuple(t.observation for t in history),
            actions=tuple(t.action for t in history[:-1]),
            admissible_commands=tuple(commands) if (commands := history[-1].admissible_commands) is not None else None,
            reasons=tuple(t.reason for t in history[:-1]),
        )


def state_key(game_id: str, observations: Sequence[str], actions: Sequence[str]) -> bytes:
    """16-byte BLAKE2b chain over the game and o_0, a_0, ..., o_t. Two states are equal if and only if their keys are.

    `observations` has one entry more than `actions`. `extend_key` is one step of the chain.
    """
    key = extend_key(blake2b(well_formed(game_id).encode(), digest_size=STATE_KEY_BYTES).digest(), "", observations[0])
    for action, observation in zip(actions, observations[1:], strict=True):
        key = extend_key(key, action, observation)
    return key


def extend_key(key: bytes, action: str, observation: str) -> bytes:
    """The key of the state reached from the state `key` by `action`, with the new `observation`. Both are made well
    formed first, as in the store.
    """
    action, observation = well_formed(action), well_formed(observation)
    text = f"{len(action)}:{action}{observation}".encode()
    return blake2b(text, key=key, digest_size=STATE_KEY_BYTES).digest()

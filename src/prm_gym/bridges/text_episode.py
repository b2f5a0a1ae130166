"""An episode that a host's model plays by its texts: messages out, responses in.

The host keeps the conversation, so a prompt must show each turn in a message of its own (`multi_turn`, as `compact`
does). Every pair (s, a) is kept for Q, which reads it under its own prompt.
"""

from __future__ import annotations

from prm_gym import prompts
from prm_gym.bridges.world import World
from prm_gym.envs.contract import ANY_REWARD, CheckedEnvironment, Shown, Task, is_won
from prm_gym.errors import UserError
from prm_gym.types import Message, Response, State


class TextEpisode:
    """One environment of `world`, episode after episode.

    `rewards` and `pairs` hold r_t and (s_t, a_t) of the actions so far; `done` says that the episode is over, `won`
    that its goal was reached. Rewards are those of the environment, of any size. Raises `UserError` for a prompt that
    is not `multi_turn`.
    """

    def __init__(self, world: World, prompt: str | prompts.Prompt) -> None:
        self._prompt = prompts.load(prompt) if isinstance(prompt, str) else prompt
        if not self._prompt.multi_turn:
            problem = f"{self._prompt.name} repeats the history in each message, and the host keeps it too"
            raise UserError("prompt", problem, "name a prompt with multi_turn = true, such as compact")
        self._world, self._env = world, CheckedEnvironment(world.make(), reward_range=ANY_REWARD)
        self.rewards: list[float] = []
        self.pairs: list[tuple[State, Response]] = []
        self.done, self.won = True, False

    def begin(self, task: str) -> list[Message]:
        """Begin `task`; the messages before the model's first response. Raises `UserError` for an unknown task, and as
        `CheckedEnvironment`.
        """
        shown = self._env.reset(Task(task, "", **self._world.arguments(task)))
        self.rewards, self.pairs, self.done, self.won = [], [], False, False
        self._state = State(task, str(shown.info.get("task") or ""), (shown.observation,), (), _commands(shown))
        return self._prompt.messages(self._state)

    def respond(self, text: str) -> Message | None:
        """Execute the action in the model's `text`; the next user message, None at the end of the episode.

        Raises `UserError` when the episode is over or not begun, and as `CheckedEnvironment`.
        """
        if self.done:
            raise UserError("episode", "is over or not begun", "begin a task")
        reason, action = prompts.parse(text)
        shown, reward, terminated, truncated = self._env.step(action)
        s = self._state
        self.pairs.append((s, Response(text, reason, action)))
        self.rewards.append(reward)
        self.done = terminated or truncated or len(self.rewards) >= self._world.max_episode_steps
        self.won = is_won(shown.info, terminated, self.rewards)
        observations = (*s.observations, shown.observation)
        self._state = State(s.game_id, s.task, observations, (*s.actions, action), _commands(shown))
        return None if self.done else self._prompt.messages(self._state)[-1]

    def close(self) -> None:
        self._env.close()


def _commands(shown: Shown) -> tuple[str, ...] | None:
    return None if shown.admissible_commands is None else tuple(shown.admissible_commands)

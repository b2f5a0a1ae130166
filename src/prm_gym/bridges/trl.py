"""Multi-turn GRPO in TRL: `GRPOTrainer(environment_factory=...)` on any text environment.

    world = alfworld("games")
    tokenizer = text_turns(AutoTokenizer.from_pretrained(model))
    args = GRPOConfig(..., max_completion_length=1024, max_tool_calling_iterations=30)
    environment = environment_factory(world, prompt="compact", max_completion_length=1024)
    GRPOTrainer(model, args=args, train_dataset=rows(world, "compact"), processing_class=tokenizer,
                environment_factory=environment).train()

TRL plays an environment through tool calls. A model with tool calls in its chat template uses `act` as it is. For any
other, `text_turns` makes each whole response a call of `act`, and shows its result as the next user message: the model
reads and writes the conversation that it was trained on.

The reward of an episode is its return, plus `q`'s mean over its steps if there is a `q` (TRL knows one reward for a
whole completion, and a mean does not grow with its length).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from statistics import fmean
from typing import Any

from datasets import Dataset

from prm_gym import prompts
from prm_gym.bridges.step_q import StepQ
from prm_gym.bridges.text_episode import TextEpisode
from prm_gym.bridges.world import World
from prm_gym.errors import UserError
from prm_gym.prompts.chat import Tokenizer, template_of
from prm_gym.types import Message, State

_TOOL = "act"
# Calls become the assistant's text and their results user messages; what follows is the model's own template.
_TURNS = """{%- set turns = namespace(all=[]) -%}
{%- for message in messages -%}
{%- if message.role == 'tool' -%}
{%- set turns.all = turns.all + [{'role': 'user', 'content': message.content}] -%}
{%- elif message.tool_calls is defined and message.tool_calls -%}
{%- set call = message.tool_calls[0].function -%}
{%- set text = call.arguments.response | default('') if call.name == 'act' else call.name ~ call.arguments -%}
{%- set turns.all = turns.all + [{'role': 'assistant', 'content': text}] -%}
{%- else -%}
{%- set turns.all = turns.all + [message] -%}
{%- endif -%}
{%- endfor -%}
{%- set messages = turns.all -%}
{%- set tools = none -%}
"""


def rows(world: World, prompt: str | prompts.Prompt) -> Dataset:
    """The tasks of `world` as TRL's `train_dataset`; `reset` adds a task's first observation to its prompt."""
    template = prompts.load(prompt) if isinstance(prompt, str) else prompt
    system = template.messages(State("", "", ("",), (), ()))[:-1]
    opening = [*system, {"role": "user", "content": ""}]
    return Dataset.from_list([{"prompt": opening, "task": task} for task in world.tasks])


def environment_factory(
    world: World, *, prompt: str | prompts.Prompt, max_completion_length: int, q: StepQ | None = None
) -> Callable[[], ToolEpisode]:
    """The argument of `GRPOTrainer`. `max_completion_length` is that of its `GRPOConfig`."""
    return lambda: ToolEpisode(TextEpisode(world, prompt), max_completion_length, q)


class ToolEpisode:
    """One episode as TRL plays it: its public methods beside `reset` and `get_reward` are tools."""

    def __init__(self, episode: TextEpisode, max_completion_length: int, q: StepQ | None) -> None:
        self._episode, self._q = episode, q
        # TRL ends an episode without another turn only if a result does not fit: it is then dropped.
        self._end = " ".join(str(number) for number in range(max_completion_length + 1))

    def reset(self, task: str, **_: Any) -> str:
        return self._episode.begin(task)[-1]["content"]

    def act(self, response: str) -> str:
        """Carry out the action that a response names.

        Args:
            response: The action, or a text that ends with it.

        Returns:
            What can be seen now.
        """
        if self._episode.done:
            return self._end
        following = self._episode.respond(response)
        return self._end if following is None else following["content"]

    def get_reward(self) -> float:
        outcome = sum(self._episode.rewards)
        pairs = self._episode.pairs
        return outcome + fmean(self._q.rewards(pairs)) if self._q and pairs else outcome


def text_turns(tokenizer: Tokenizer) -> Tokenizer:
    """Make every whole response of the model a call of `act`; changes and returns `tokenizer`.

    Raises `UserError` where the chat template has no text before or after an assistant's turn.
    """
    end = template_of(tokenizer).end
    user: list[Message] = [{"role": "user", "content": "go"}]
    plain, asked = (
        tokenizer.apply_chat_template(user, tokenize=False, add_generation_prompt=asking) for asking in (False, True)
    )
    opening = asked.removeprefix(plain)
    if not end or not opening or opening == asked:
        raise UserError("tokenizer", "its chat template does not mark the assistant's turn", "use another template")
    tokenizer.chat_template = _TURNS + tokenizer.chat_template
    call = {"type": "function", "function": {"name": _TOOL, "arguments": {"response": "{content}"}}}
    field = {"open_pattern": r"(?=[\s\S])", "close_pattern": f"{re.escape(end)}|$", "repeats": True, "transform": call}
    template = {"defaults": {"role": "assistant", "content": ""}, "start_anchor": opening}
    tokenizer.response_template = {**template, "fields": {"tool_calls": field}}  # type: ignore[attr-defined]
    return tokenizer

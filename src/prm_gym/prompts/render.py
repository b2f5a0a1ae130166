"""`Prompt`: a jinja file that turns a state into chat messages, and a reason and an action into a response."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import cast

from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from prm_gym.errors import UserError
from prm_gym.types import Message, State

BUILT_IN = ("compact", "full")
_MACROS = ("system", "user", "response")


class Prompt:
    """One prompt template. `multi_turn`: each turn is a message of its own (every prompt extends the one before it);
    otherwise a single user message holds the history.
    """

    def __init__(self, name: str, source: str) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined, autoescape=False
        )
        try:
            module = environment.from_string(source).module
        except TemplateError as error:
            raise UserError(name, f"not a valid jinja template ({error})", "correct the template") from error
        missing = [entry for entry in (*_MACROS, "multi_turn") if not hasattr(module, entry)]
        if missing:
            raise UserError(name, f"lacks {', '.join(missing)}", "define it as in prompts/full.jinja")
        self.name = name
        self.multi_turn = bool(vars(module)["multi_turn"])
        self._system, self._user, self._response = (
            cast(Callable[..., str], getattr(module, macro)) for macro in _MACROS
        )

    def messages(self, state: State) -> list[Message]:
        """The chat that ends with the user message at `state`; a function of the state alone."""
        return self._chat(state, explore=False)

    def exploration_messages(self, state: State) -> list[Message]:
        """As `messages`, with the addition of Steered Exploration (section 4.1 of the paper) in the last message."""
        return self._chat(state, explore=True)

    def response(self, reason: str, action: str) -> str:
        """What the assistant writes to give `reason` and take `action`."""
        return str(self._response(reason, action))

    def _chat(self, state: State, *, explore: bool) -> list[Message]:
        chat: list[Message] = []
        if system := str(self._system()).strip():
            chat.append({"role": "system", "content": system})
        last = state.turn
        if self.multi_turn:
            for t, action in enumerate(state.actions):
                chat.append(self._user_message(state, t, explore=False))
                chat.append({"role": "assistant", "content": self.response("", action)})
        chat.append(self._user_message(state, last, explore=explore))
        return chat

    def _user_message(self, state: State, turn: int, *, explore: bool) -> Message:
        past = [] if self.multi_turn else zip(state.observations, state.actions, strict=False)
        content = self._user(
            task=state.task,
            history=[{"observation": observation, "action": action} for observation, action in past],
            observation=state.observations[turn],
            admissible_commands=state.admissible_commands,
            turn=turn,
            explore=explore,
        )
        return {"role": "user", "content": str(content).strip()}


@lru_cache(maxsize=16)
def load(name: str) -> Prompt:
    """A prompt by name (`compact`, `full`) or by the path of a jinja file. Raises `UserError` if there is none."""
    if name in BUILT_IN:
        return Prompt(name, files(__package__).joinpath(f"{name}.jinja").read_text("utf-8"))
    path = Path(name)
    if not path.is_file():
        raise UserError(name, "no such prompt", f"name one of {', '.join(BUILT_IN)} or the path of a jinja file")
    return Prompt(name, path.read_text("utf-8"))

"""`Prompt`: a jinja file that turns a state into chat messages, and a reason and an action into a response."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import cast

from jinja2 import StrictUndefined, TemplateError, UndefinedError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from prm_gym.errors import UserError, first_line
from prm_gym.prompts.plain_templates import UserFrames, is_plain
from prm_gym.types import Message, State
from prm_gym.unicode import well_formed

BUILT_IN = ("compact", "full", "general", "react", "world", "world_compact")
_MACROS = ("system", "user", "response")


class Prompt:
    """One prompt template.

    With `multi_turn` each turn is a message of its own, so every prompt extends the previous one; otherwise a single
    user message holds the history. With `shows_reasons`, which needs `multi_turn`, the assistant's past messages hold
    their reasoning; otherwise the action alone, as `response` writes it without a reason.

    `user` is called with `task`, `history` (pairs of observation and action; empty if `multi_turn`), `observation`,
    `admissible_commands` (empty for past turns, None if unknown), `turn` and `explore`; `response` with `reason` and
    `action`. Both are tried with sample values: an unusable template is a `UserError` here.
    """

    def __init__(self, name: str, source: str) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined, autoescape=False
        )
        try:
            parsed, module = environment.parse(source), environment.from_string(source).module
        except TemplateError as error:
            raise UserError(name, f"not a valid jinja template ({error})", "correct the template") from error
        missing = [entry for entry in (*_MACROS, "multi_turn") if not hasattr(module, entry)]
        if missing:
            raise UserError(name, f"lacks {', '.join(missing)}", "define it as in prompts/full.jinja")
        self.name, self.source = name, source
        self.multi_turn = bool(vars(module)["multi_turn"])
        self.shows_reasons = bool(vars(module).get("shows_reasons"))
        if self.shows_reasons and not self.multi_turn:
            raise UserError(name, "shows_reasons without multi_turn", "set both, or neither", field="shows_reasons")
        system, self._user, self._response = (cast(Callable[..., str], getattr(module, macro)) for macro in _MACROS)
        try:
            self._system = str(system()).strip()
            self._try()
        except (TemplateError, TypeError) as error:
            problem = f"cannot be rendered ({first_line(error)})"
            raise UserError(name, problem, "correct the template as in prompts/full.jinja") from error
        self._frames = UserFrames(self._user) if is_plain(parsed) and not self.multi_turn else None
        # A past turn is rendered the same in every later prompt, without its commands.
        self._past = lru_cache(maxsize=65536)(
            lambda task, observation, turn, explore: self._content(task, (), observation, (), turn, explore)
        )
        self._past_response = lru_cache(maxsize=65536)(self.response)

    def __reduce__(self) -> tuple[type[Prompt], tuple[str, str]]:
        return Prompt, (self.name, self.source)

    def _try(self) -> None:
        """Render a first and a second turn, plain and steered, and a response."""
        for turn, explore in product((0, 1), (False, True)):
            self._user(
                task="put a mug in desk.",
                history=() if self.multi_turn else (("You are in the middle of a room.", "go to shelf 1"),) * turn,
                observation="On the shelf 1, you see a mug 1.",
                admissible_commands=() if self.multi_turn and not turn else ("look", "take mug 1 from shelf 1"),
                turn=turn,
                explore=explore,
            )
        self._response("I need a mug.", "take mug 1 from shelf 1")

    def messages(self, state: State) -> list[Message]:
        """The chat up to the user message at `state`; a function of the state alone."""
        return self._chat(state, explore=False)

    def exploration_messages(self, state: State) -> list[Message]:
        """As `messages`, with the addition of Steered Exploration (section 4.1 of the paper) in each user message."""
        return self._chat(state, explore=True)

    def response(self, reason: str, action: str) -> str:
        """The assistant's text for `reason` and `action`."""
        return well_formed(str(self._response(reason, action)))

    def _chat(self, state: State, *, explore: bool) -> list[Message]:
        chat: list[Message] = []
        if self._system:
            chat.append({"role": "system", "content": self._system})
        if self.multi_turn:
            reasons = state.reasons if self.shows_reasons and state.reasons else ("",) * state.turn
            for turn, (reason, action) in enumerate(zip(reasons, state.actions, strict=True)):
                chat.append(
                    {"role": "user", "content": self._past(state.task, state.observations[turn], turn, explore)}
                )
                chat.append({"role": "assistant", "content": self._past_response(reason, action)})
        history = () if self.multi_turn else tuple(zip(state.observations, state.actions, strict=False))
        content = self._content(
            state.task, history, state.observations[-1], state.admissible_commands, state.turn, explore
        )
        return [*chat, {"role": "user", "content": content}]

    def _content(
        self,
        task: str,
        history: tuple[tuple[str, str], ...],
        observation: str,
        admissible_commands: tuple[str, ...] | None,
        turn: int,
        explore: bool,
    ) -> str:
        if self._frames:
            framed = self._frames.text(task, history, observation, admissible_commands, turn, explore)
            if framed is not None:
                return well_formed(framed.strip())
        try:
            text = self._user(
                task=task,
                history=history,
                observation=observation,
                admissible_commands=admissible_commands,
                turn=turn,
                explore=explore,
            )
        except (TypeError, UndefinedError):
            if admissible_commands is not None:
                raise
            problem = f"{self.name} lists the admissible commands, which this environment does not tell"
            raise UserError("prompt", problem, "use the prompt general, or a template that allows for None") from None
        return well_formed(str(text).strip())


@lru_cache(maxsize=16)
def load(name: str) -> Prompt:
    """A prompt by name (`compact`, `full`, `general`, `react`) or by a jinja file, else raises `UserError`."""
    if name in BUILT_IN:
        return Prompt(name, files(__package__).joinpath(f"{name}.jinja").read_text("utf-8"))
    path = Path(name)
    if not path.is_file():
        raise UserError(
            "prompt", f"no such prompt {name!r}", f"name one of {', '.join(BUILT_IN)} or the path of a jinja file"
        )
    try:
        return Prompt(name, path.read_text("utf-8"))
    except UnicodeDecodeError as error:
        raise UserError(name, f"is not UTF-8 text ({first_line(error)})", "save it as UTF-8") from None

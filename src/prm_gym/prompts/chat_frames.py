"""The text of a chat without its chat template: a frame for each sequence of roles.

The template runs twice when a sequence of roles is first seen (`frames`), so anything that depends on positions and
roles is right, in any template. Contents are another matter. A chat goes through its template if it has

- a content that is empty or that has white space around it, which templates strip;
- a content with a text that the template looks for, such as `</think>`: a string before `in`, in a comparison of a
  slice, or in the arguments of a method or a filter;
- a content that is equal to a string of the template;
- messages with other keys than role and content.

So does every chat of a template that cannot be parsed or shows the time of day. A template that shows the date has its
frames for one day.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from datetime import date

from jinja2 import TemplateSyntaxError, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from prm_gym.prompts.frames import Frame, frame_of
from prm_gym.types import Message

_MOST = 1024  # frames
_KEYS = {"role", "content"}
_GENERATION = re.compile(r"\{%-?\s*(end)?generation\s*-?%\}")  # a tag of transformers that writes nothing
_TIME_OF_DAY = re.compile("%-?[HIMSpfcXTRrs]")


class ChatFrames:
    """The frames of the chat template `source`."""

    def __init__(self, source: object) -> None:
        self._frames: dict[object, Frame | None] = {}
        self._searched: list[str] | None = None
        self._strings = set[str]()
        try:
            parsed = ImmutableSandboxedEnvironment(extensions=["jinja2.ext.loopcontrols"]).parse(
                _GENERATION.sub("", str(source))
            )
        except TemplateSyntaxError:
            return
        self._strings = {const.value for const in parsed.find_all(nodes.Const) if isinstance(const.value, str)}
        self._dated = "strftime_now" in str(source)
        if not (self._dated and any(map(_TIME_OF_DAY.search, self._strings))):
            self._searched = sorted({text for text in _searched(parsed) if text.strip()})

    def text(self, chat: Sequence[Message], open_turn: bool, render: Callable[[list[Message]], str]) -> str:
        """`render(chat)`, which applies the template; through a frame where there is one."""
        contents = [message["content"] for message in chat]
        if not self._printed_as_they_are(chat, contents):
            return render(list(chat))
        roles = tuple([message["role"] for message in chat])
        key = (roles, open_turn, date.today() if self._dated else None)
        if key not in self._frames:
            if len(self._frames) >= _MOST:
                self._frames.clear()
            self._frames[key] = frame_of(
                lambda marks: render([{"role": role, "content": m} for role, m in zip(roles, marks, strict=True)]),
                len(roles),
            )
        frame = self._frames[key]
        return render(list(chat)) if frame is None else frame.fill(contents)

    def _printed_as_they_are(self, chat: Sequence[Message], contents: list[str]) -> bool:
        if self._searched is None or not all(message.keys() == _KEYS for message in chat):
            return False
        if not all(isinstance(content, str) and content and content.strip() == content for content in contents):
            return False
        whole = "\n".join(contents)
        return not any(text in whole for text in self._searched) and self._strings.isdisjoint(contents)


def _searched(parsed: nodes.Template) -> Iterator[str]:
    """The strings that the template may look for in a content (see the module)."""
    for compare in parsed.find_all(nodes.Compare):
        if any(operand.op in ("in", "notin") for operand in compare.ops) or compare.find(nodes.Slice):
            yield from _strings([compare.expr, *(operand.expr for operand in compare.ops)])
    for call in parsed.find_all(nodes.Call):
        if isinstance(call.node, nodes.Getattr):
            yield from _strings(call.args)
    for applied in (*parsed.find_all(nodes.Filter), *parsed.find_all(nodes.Test)):
        yield from _strings(applied.args)


def _strings(expressions: Sequence[nodes.Node]) -> Iterator[str]:
    for expression in expressions:
        if isinstance(expression, nodes.Const) and isinstance(expression.value, str):
            yield expression.value

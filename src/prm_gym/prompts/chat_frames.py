"""The text of a chat without its chat template: a frame for each sequence of roles.

The template runs twice when a sequence of roles is first seen (`frames`), so anything that depends on positions and
roles is right, in any template. Contents are another matter. A chat goes through its template if it has

- a content that is empty or that has white space around it, which templates strip;
- a content with a text that the template looks for, such as `</think>`: a string before `in`, in a comparison of a
  part of a text, or in the arguments of a method or a filter; itself or by the name of a variable;
- a content that is equal to a string of the template;
- messages with other keys than role and content.

So does every chat of a template that cannot be parsed or shows the time of day. Upper and lower case count as equal,
since a template may look into `content | lower`. A template that shows the date has its frames for one day.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
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
        strings = set(_strings(parsed.find_all(nodes.Const)))
        self._strings = {text.lower() for text in strings}
        self._dated = "strftime_now" in str(source)
        if not (self._dated and any(map(_TIME_OF_DAY.search, strings))):
            self._searched = sorted({text.lower() for text in _searched(parsed) if text.strip()})

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
        lowered = [content.lower() for content in contents]
        whole = "\n".join(lowered)
        return not any(text in whole for text in self._searched) and self._strings.isdisjoint(lowered)


def _searched(parsed: nodes.Template) -> Iterator[str]:
    """The strings that the template may look for in a content (see the module)."""
    named = _named(parsed)
    for sought in _sought(parsed):
        yield from _strings(sought)
        for each in sought:
            yield from _strings(named.get(_name(each), ()))


def _named(parsed: nodes.Template) -> dict[str, list[nodes.Node]]:
    """The values of each name: assigned, in the list of a loop, or given by keyword, as to `namespace`."""
    named: dict[str, list[nodes.Node]] = {}
    for assign in parsed.find_all(nodes.Assign):
        named.setdefault(_name(assign.target), []).append(assign.node)
    for loop in parsed.find_all(nodes.For):
        named.setdefault(_name(loop.target), []).extend(_items(loop.iter))
    for keyword in parsed.find_all(nodes.Keyword):
        named.setdefault(keyword.key, []).append(keyword.value)
    return named


def _sought(parsed: nodes.Template) -> Iterator[Sequence[nodes.Node]]:
    """The operands and the arguments that may be texts to look for."""
    parts = {_name(assign.target) for assign in parsed.find_all(nodes.Assign) if _is_a_part(assign)}
    for compare in parsed.find_all(nodes.Compare):
        operands = [compare.expr, *(operand.expr for operand in compare.ops)]
        if _is_a_part(compare) or not parts.isdisjoint(map(_name, operands)):
            yield [item for operand in operands for item in _items(operand)]
        elif any(operand.op in ("in", "notin") and [operand.expr] == _items(operand.expr) for operand in compare.ops):
            yield operands
    for call in parsed.find_all(nodes.Call):
        if isinstance(call.node, nodes.Getattr):
            yield call.args
    for applied in (*parsed.find_all(nodes.Filter), *parsed.find_all(nodes.Test)):
        yield applied.args


def _is_a_part(node: nodes.Node) -> bool:
    """Whether `node` is made of a part of a text: a slice, an item by its number, the first or the last."""
    if isinstance(node, nodes.Call) and isinstance(node.node, nodes.Getattr):  # a method
        return _is_a_part(node.node.node)
    if isinstance(node, nodes.Getattr):
        return False
    if isinstance(node, nodes.Getitem):
        by_name = isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str)
        return not by_name and _name(node.node) != "messages"
    if isinstance(node, nodes.Filter) and node.name in ("first", "last"):
        return _name(node.node) != "messages"
    return any(map(_is_a_part, node.iter_child_nodes()))


def _name(node: nodes.Node | None) -> str:
    """The name of a variable, or of a field; else empty."""
    return str(getattr(node, "attr", None) or getattr(node, "name", ""))


def _items(node: nodes.Node) -> list[nodes.Node]:
    """The items of a list, else `node` alone."""
    return list(getattr(node, "items", [node]))


def _strings(expressions: Iterable[nodes.Node]) -> Iterator[str]:
    for expression in expressions:
        if isinstance(expression, nodes.Const) and isinstance(expression.value, str):
            yield expression.value

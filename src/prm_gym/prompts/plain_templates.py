"""Prompt templates that only print their contents, and the frames of their user messages.

A template is plain if its macro `user` uses the contents (`task`, `observation`, and the observations, actions and
commands that it loops over) in these ways alone:

- `{{ content }}` prints one as it is;
- `{% if task %}`, `{% if observation %}`, `{% if history %}`, `{% if admissible_commands is none %}` and their like ask
  whether there is one;
- `{% for o, a in history %}`, where `loop` may give positions; `{% for c in admissible_commands %}`, without `loop`.

The text of a plain template is a `Frame` for each number of past turns. All commands stand between the same texts, so a
frame is made with two of them, and holds for any number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from jinja2 import nodes

from prm_gym.prompts.frames import Frame, split_at_marks

_CONTENTS, _LISTS = ("task", "observation"), ("history", "admissible_commands")
_POSITIONS = {"index", "index0", "revindex", "revindex0", "first", "last", "length"}
_MOST = 1024  # frames


def is_plain(parsed: nodes.Template) -> bool:
    """Whether the macro `user` of the template only prints its contents (see the module)."""
    macros = [macro for macro in parsed.find_all(nodes.Macro) if macro.name == "user"]
    return len(macros) == 1 and _Reader().allows(macros[0].body)


class _Reader:
    """Looks for uses of contents that are not plain."""

    def __init__(self) -> None:
        self.contents = set(_CONTENTS)
        self.names = {*_CONTENTS, *_LISTS, "loop"}
        self.loops: list[str] = []  # what the loops around a node go over

    def allows(self, body: Sequence[nodes.Node]) -> bool:
        return all(self._allows(node) for node in body)

    def _allows(self, node: nodes.Node) -> bool:
        if isinstance(node, nodes.Output):
            return all(_is_name(part, self.contents) or self._neutral(part) for part in node.nodes)
        if isinstance(node, nodes.If):
            asked = self._asks(node.test)
            return asked and self.allows(node.body) and self.allows(node.elif_) and self.allows(node.else_)
        if isinstance(node, nodes.For):
            return self._allows_loop(node)
        return self._neutral(node)

    def _allows_loop(self, node: nodes.For) -> bool:
        over = node.iter
        if not isinstance(over, nodes.Name) or over.name not in _LISTS or node.test is not None or node.recursive:
            return False
        named = [name.name for name in (node.target, *node.target.find_all(nodes.Name)) if isinstance(name, nodes.Name)]
        wanted = 2 if over.name == "history" else 1
        if len(named) != wanted or self.names & set(named):
            return False
        self.contents |= set(named)
        self.names |= set(named)
        self.loops.append(over.name)
        allowed = self.allows(node.body) and self.allows(node.else_)
        self.loops.pop()
        self.contents -= set(named)  # the names stay taken
        return allowed

    def _asks(self, test: nodes.Node) -> bool:
        """Whether a condition asks no more of contents than whether there are any."""
        if isinstance(test, nodes.Not):
            return self._asks(test.node)
        if isinstance(test, nodes.And | nodes.Or):
            return self._asks(test.left) and self._asks(test.right)
        if isinstance(test, nodes.Test) and test.name == "none":
            return _is_name(test.node, ("admissible_commands",))
        return _is_name(test, (*_CONTENTS, *_LISTS)) or self._neutral(test)

    def _neutral(self, node: nodes.Node) -> bool:
        """Whether `node` uses no content, and of `loop` positions alone."""
        if isinstance(node, nodes.Getattr) and _is_name(node.node, ("loop",)):
            return self.loops[-1:] == ["history"] and node.attr in _POSITIONS
        if isinstance(node, nodes.Name):
            return node.name not in self.names
        return all(self._neutral(child) for child in node.iter_child_nodes())


def _is_name(node: Any, names: Any) -> bool:
    return isinstance(node, nodes.Name) and node.name in names


class UserFrames:
    """The frames of the macro `user` of a plain template; `render` calls the macro with its keyword arguments."""

    def __init__(self, render: Callable[..., str]) -> None:
        self._render = render
        self._frames: dict[tuple[Any, ...], tuple[Frame, str] | None] = {}

    def text(
        self,
        task: str,
        history: Sequence[tuple[str, str]],
        observation: str,
        commands: Sequence[str] | None,
        turn: int,
        explore: bool,
    ) -> str | None:
        """What `render` makes of these arguments; None if there is no frame for them."""
        kind = None if commands is None else bool(commands)
        key = (bool(task), len(history), bool(observation), kind, turn, explore)
        if key not in self._frames:
            if len(self._frames) >= _MOST:
                self._frames.clear()
            self._frames[key] = self._frame(*key)
        found = self._frames[key]
        if found is None:
            return None
        frame, between = found
        past = [text for pair in history for text in pair]
        return frame.fill([*([task] if task else []), *past, observation, between.join(commands or ())])

    def _frame(
        self, task: bool, past: int, observation: bool, commands: bool | None, turn: int, explore: bool
    ) -> tuple[Frame, str] | None:
        """A frame of the task, the history, the observation and the list of commands, and the text between commands."""

        def render(marks: list[str]) -> str:
            rest = iter(marks)
            return self._render(
                task=next(rest) if task else "",
                history=tuple((next(rest), next(rest)) for _ in range(past)),
                observation=next(rest),
                admissible_commands=tuple(rest) if commands else None if commands is None else (),
                turn=turn,
                explore=explore,
            )

        contents = task + 2 * past + 1
        split = split_at_marks(render, contents + (2 if commands else 0))
        if split is None or not observation:
            return None
        literals, places = split
        if not commands:
            return Frame([*literals, ""], [*places, contents]), ""
        first = places.index(contents)
        if places.count(contents) != 1 or places[first + 1 : first + 2] != [contents + 1]:
            return None
        between = literals.pop(first + 1)
        del places[first + 1]
        return Frame(literals, places), between

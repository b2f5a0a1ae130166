r"""The one parser of model output.

The rule, in the order in which it is applied:

1. A label is REASON or ACTION at the start of a line, in any case, with markdown marks (`*`, `_`, `#`, `>`, `-`,
   backticks) and spaces around it and a colon after it: `ACTION:`, `**Action:**`, `- action :`.
2. The action is the first line after the *last* ACTION label that has text: models that think aloud correct
   themselves, and what follows the line is comment.
3. The reason is the text after the last REASON label before that action, up to the next label; without such a label,
   the text before the ACTION label.
4. Without any ACTION label, the last non-empty line outside a REASON is the action: this is all that a compact
   prompt asks for. A REASON without anything else gives an empty action.
5. Markdown marks, quotes and a final full stop around the action are dropped, runs of spaces become one. Case is
   kept: ALFWorld's commands are case sensitive and a wrong case is the model's mistake, not the parser's.

An empty action is legal output of the parser; the environment answers it with "Nothing happens." and the rollout
marks it as not admissible.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_LABEL = re.compile(r"^[ \t*_#>`-]*(REASON|ACTION)[ \t*_`]*:[ \t*_`]*", re.IGNORECASE | re.MULTILINE)
_MARKS = " \t*_`\"'"


class Parsed(NamedTuple):
    reason: str
    action: str


def parse(text: str) -> Parsed:
    """Reason and action in `text`, by the rule above. Never raises; what is missing is an empty string."""
    labels = list(_LABEL.finditer(text))
    ends = [label.start() for label in labels[1:]] + [len(text)]
    sections = [(label[1].upper(), text[label.end() : end]) for label, end in zip(labels, ends, strict=False)]
    before = text[: labels[0].start()] if labels else text

    for i in range(len(sections) - 1, -1, -1):
        kind, body = sections[i]
        if kind == "ACTION" and (action := _clean(_first_line(body))):
            reasons = [b for k, b in sections[:i] if k == "REASON"]
            return Parsed(_join(reasons[-1] if reasons else before), action)

    reasons = [body for kind, body in sections if kind == "REASON"]
    lines = [line for line in before.splitlines() if line.strip()]
    if reasons:  # the lines that follow a one-line reason are not part of it
        head, _, tail = reasons[-1].lstrip().partition("\n")
        return Parsed(_join(head), _clean(_last_line(tail)))
    return Parsed(_join("\n".join(lines[:-1])), _clean(lines[-1]) if lines else "")


def format_response(reason: str, action: str) -> str:
    """The canonical response, of which `parse` is the inverse."""
    return f"REASON: {reason}\nACTION: {action}"


def _first_line(text: str) -> str:
    return next((line for line in text.splitlines() if line.strip()), "")


def _last_line(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "")


def _clean(action: str) -> str:
    return " ".join(action.strip(_MARKS).removesuffix(".").strip(_MARKS).split())


def _join(text: str) -> str:
    return " ".join(text.split())

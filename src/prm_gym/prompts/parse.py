r"""The one parser of model output.

The rule, in the order in which it is applied:

1. A label is REASON or ACTION at the start of a line, in any case, with markdown marks (`*`, `_`, `#`, `>`, `-`,
   backticks) and spaces around it and a colon after it: `ACTION:`, `**Action:**`, `- action :`.
2. The action is the first line after the *last* ACTION label that has text: models that think aloud correct
   themselves, and text after that line is a comment.
3. The reason is the text after the last REASON label before that action, up to the next label; without such a label,
   the text before the ACTION label.
4. Without any ACTION label, a text that ends with `<action>...</action>` gives the action inside the last such pair of
   tags, and a text that ends with a JSON object, in a code fence or not, gives the one under its key "action", a
   string; tags and keys in any case. The reason is that of rule 3, else the text under the key "reason", else the text
   before, without its tags (`<think>`). An object that is cut off, or whose action is no string, is plain text.
5. Otherwise the last non-empty line outside a REASON is the action, which is all that a compact prompt asks for. A
   REASON alone gives an empty action.
6. Only the first non-empty line of the action counts. A prompt or list mark before it (`>`, `-`, `1.`, `2)`), the tags
   of rule 4, markdown marks, quotes and a final full stop around it are dropped, runs of spaces become one. Case is
   kept: ALFWorld's commands are case sensitive, and a wrong case is the model's mistake, not the parser's.

An empty action is valid output: the environment answers "Nothing happens." and the rollout marks it as not admissible.
"""

from __future__ import annotations

import json
import re
from typing import NamedTuple

_LABEL = re.compile(r"^[ \t*_#>`-]*(REASON|ACTION)[ \t*_`]*:[ \t*_`]*", re.IGNORECASE | re.MULTILINE)
_MARKS = " \t*_`\"'"
_LIST_MARK = re.compile(r"^(?:>\s*|(?:-|\d{1,3}[.)])\s+)+(?=\S)")
_OPENING = re.compile(r"<action>", re.IGNORECASE)
_CLOSING = re.compile(r"</action>\Z", re.IGNORECASE)
_AROUND = re.compile(r"^<action>|</action>$", re.IGNORECASE)
_TAG = re.compile(r"</?\w+>")
_OBJECT = re.compile(r"^[ \t]*\{", re.MULTILINE)
_FENCE = re.compile(r"```\w*\s*\Z")


class Parsed(NamedTuple):
    reason: str
    action: str


def parse(text: str) -> Parsed:
    """Reason and action in `text`, by the rules above. Never raises; a missing part is an empty string."""
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
    if enclosed := _enclosed(text):
        start, reason, action = enclosed
        starts = [label.end() for label in labels if label[1].upper() == "REASON" and label.end() <= start]
        return Parsed(_join(text[starts[-1] : start] if starts else reason), action)
    lines = [line for line in before.splitlines() if line.strip()]
    if reasons:  # lines after a one-line reason are not part of it
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
    action = _AROUND.sub("", _LIST_MARK.sub("", action.strip(_MARKS)))
    return " ".join(action.strip(_MARKS).removesuffix(".").strip(_MARKS).split())


def _enclosed(text: str) -> tuple[int, str, str] | None:
    """Where the tags or the JSON object begin that `text` ends with, and the reason and the action of rule 4."""
    text = text.rstrip()
    openings = list(_OPENING.finditer(text))
    if openings and (closing := _CLOSING.search(text)):
        start = openings[-1].start()
        action = _clean(_first_line(text[openings[-1].end() : closing.start()]))
        return (start, _TAG.sub(" ", text[:start]), action) if action else None
    if not text.endswith(("}", "```")) or not (opening := _OBJECT.search(text)):
        return None
    start = opening.start()
    try:
        values = json.loads(text[start:].removesuffix("```"))
    except (ValueError, RecursionError):
        return None
    found = {key.lower(): value for key, value in values.items() if isinstance(value, str)}
    action = _clean(_first_line(found.get("action", "")))
    before = _FENCE.sub("", text[:start])
    return (start, found.get("reason") or _TAG.sub(" ", before), action) if action else None


def _join(text: str) -> str:
    return " ".join(text.split())

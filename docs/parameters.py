"""An extension of griffe: a parameter written as `name: what it is` on one line is a name and its description.

The docstrings leave out types, which the signatures have; numpydoc would take the description for the type. It would
also take a paragraph below the parameters for more of them, so such a paragraph is put above.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

_HEAD = "Parameters\n----------\n"
_ENTRY = re.compile(r"^(\w+(?:, \w+)*) ?: (.+)$")
_RULE = re.compile(r"^-{3,}$")


def described(docstring: str) -> str:
    """`docstring` with every `name: text` of its parameters on two lines, and what follows them in front of them."""
    before, head, rest = docstring.partition(_HEAD)
    if not head:
        return docstring
    lines = rest.split("\n")
    rules = [number for number, line in enumerate(lines) if _RULE.match(line)]
    end = rules[0] - 1 if rules else len(lines)  # where the next section begins
    inside = [
        line == "" or line.startswith(" ") or bool(_ENTRY.match(line)) or _has_text_below(lines, number)
        for number, line in enumerate(lines[:end])
    ]
    stop = inside.index(False) if False in inside else end
    entries = [_ENTRY.sub(r"\1\n    \2", line) for line in lines[:stop]]
    return "\n".join([before.rstrip("\n"), "", *lines[stop:end], "", head + "\n".join([*entries, *lines[end:]])])


def _has_text_below(lines: list[str], number: int) -> bool:
    return number + 1 < len(lines) and lines[number + 1].startswith("    ")


class DescribedParameters(griffe.Extension):
    """Rewrites the docstrings of what mkdocstrings shows."""

    def on_instance(self, *, obj: Any, **_: Any) -> None:
        if getattr(obj, "docstring", None):
            obj.docstring.value = described(obj.docstring.value)

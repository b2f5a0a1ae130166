"""An extension of griffe: a parameter written as `name: what it is` on one line is a name and its description.

The docstrings leave out types, which the signatures have; numpydoc would take the description for the type.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

_SECTION = re.compile(r"^Parameters\n-{3,}\n((?:.*\n?)*?)(?=\n\S+.*\n-{3,}\n|\Z)", re.MULTILINE)
_ENTRY = re.compile(r"^((?:\w+)(?:, \w+)*) ?: (.+)$", re.MULTILINE)


def described(docstring: str) -> str:
    """`docstring` with every `name: text` of its parameters on two lines."""
    return _SECTION.sub(lambda section: _ENTRY.sub(r"\1\n    \2", section[0]), docstring)


class DescribedParameters(griffe.Extension):
    """Rewrites the docstrings of what mkdocstrings shows."""

    def on_instance(self, *, obj: Any, **_: Any) -> None:
        if getattr(obj, "docstring", None):
            obj.docstring.value = described(obj.docstring.value)

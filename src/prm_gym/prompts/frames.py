"""`Frame`: the text that a template writes around its contents, so that the template need not run again.

`frame_of` renders a template twice, with short and with long marks as contents, and takes the text around them. The
frame gives the template's text for all contents if the template only prints them. Its callers (`plain_templates` for
prompts, `chat_frames` for chat templates) check this in the template's source.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

_BODIES = ("", " first. Second!\n\n  " + "third, " * 500 + '\n- fourth: "it\'s" <5> {{ 6 }} 7 % Q')


class Frame:
    """Literal text with places for contents, each used once or several times, in any order."""

    def __init__(self, literals: Sequence[str], places: Sequence[int]) -> None:
        """`places[i]`, the number of a content, stands between `literals[i]` and `literals[i + 1]`."""
        self._format = "%s".join(literal.replace("%", "%%") for literal in literals)
        self._places = tuple(places)

    def fill(self, contents: Sequence[str]) -> str:
        return self._format % tuple([contents[place] for place in self._places])


def split_at_marks(render: Callable[[list[str]], str], count: int) -> tuple[list[str], list[int]] | None:
    """The literal texts and the places (see `Frame`) of what `render` makes of `count` contents.

    None if it raises, leaves a content out, or writes other text around other contents.
    """
    found: list[tuple[list[str], list[int]]] = []
    for body in _BODIES:
        marks = [f"Q{number}Q{body}" for number in range(count)]
        try:
            text = render(marks)
        except Exception:  # templates may raise anything
            return None
        parts = re.split(f"Q([0-9]+)Q{re.escape(body)}", text)
        found.append((parts[::2], [int(place) for place in parts[1::2]]))
    literals, places = found[0]
    same = found[0] == found[1] and set(places) == set(range(count))
    return (literals, places) if same and not any(re.search("Q[0-9]+Q", text) for text in literals) else None


def frame_of(render: Callable[[list[str]], str], count: int) -> Frame | None:
    """The frame of `render`, which turns `count` contents into a text; None if it has none (see `split_at_marks`)."""
    split = split_at_marks(render, count)
    return None if split is None else Frame(*split)

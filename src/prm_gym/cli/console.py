"""Where commands print their results."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

console = Console()


def say(text: str, style: str | None = None) -> None:
    """Print `text`, which may hold a path or the words of a model, as it is, but for control characters."""
    console.print(Text(visible(text), style or ""), soft_wrap=True)  # rich reads markup and emoji in plain strings


def visible(text: str) -> str:
    r"""`text` with control characters escaped, except line feeds, so that `\x1b[2J` does not clear the screen."""
    return "".join(char if char.isprintable() or char == "\n" else repr(char)[1:-1] for char in text)

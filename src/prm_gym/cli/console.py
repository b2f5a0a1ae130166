"""Where commands print their results."""

from __future__ import annotations

from rich.console import Console

console = Console()


def say(text: str, style: str | None = None) -> None:
    """Print text of a game or a model: no markup in it counts, and no control character reaches the terminal."""
    console.print(visible(text), style=style, markup=False, highlight=False, soft_wrap=True)


def visible(text: str) -> str:
    r"""`text` with control characters but the line feed spelt out: `\x1b[2J` clears no screen."""
    return "".join(char if char.isprintable() or char == "\n" else repr(char)[1:-1] for char in text)

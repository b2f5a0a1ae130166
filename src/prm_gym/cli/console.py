"""Where commands print their results."""

from __future__ import annotations

from rich.console import Console

console = Console()


def say(text: str, style: str | None = None) -> None:
    """Print untrusted text of a game or a model, without markup and control characters."""
    console.print(visible(text), style=style, markup=False, highlight=False, soft_wrap=True)


def visible(text: str) -> str:
    r"""`text` with control characters escaped, except line feeds, so that `\x1b[2J` does not clear the screen."""
    return "".join(char if char.isprintable() or char == "\n" else repr(char)[1:-1] for char in text)

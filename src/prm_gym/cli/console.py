"""Where commands print their results."""

from rich.console import Console

console = Console()

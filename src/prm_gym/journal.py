"""Files of lines that a process appends to, and goes on with after a kill."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def whole_lines(file: Path) -> Iterator[bytes]:
    """The lines of `file`, none if there is no such file. A last line that a kill cut short is removed from it."""
    if not file.exists():
        return
    with file.open("rb+") as lines:
        end = 0
        for line in lines:
            if line.endswith(b"\n"):
                end += len(line)
                yield line
        lines.truncate(end)

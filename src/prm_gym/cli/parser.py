"""The argument parser of every command."""

from __future__ import annotations

import argparse
from typing import Any, TypeAlias


class Parser(argparse.ArgumentParser):
    """Flags are written out in full: an abbreviation would change its meaning when a flag is added."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)


Commands: TypeAlias = "argparse._SubParsersAction[Parser]"


def add_command(commands: Commands, name: str, text: str, **options: Any) -> Parser:
    """A command's parser; `text` is its line in the list of commands and, by default, the head of its own help."""
    return commands.add_parser(name, help=text, **{"description": text, **options})

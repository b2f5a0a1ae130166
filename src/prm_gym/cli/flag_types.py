"""Types of flag values. Each raises an error that the parser prints with the flag, before work starts."""

from __future__ import annotations

import json
import math
from argparse import ArgumentTypeError
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from prm_gym.errors import HOTTEST, INT32, INT64, UserError, check_range

PROMPTS = "full, general, react, compact, world, world_compact, or a jinja file"  # in the help of --prompt

Number = TypeVar("Number", int, float)


def path(text: str) -> Path:
    if not text.strip():
        raise ArgumentTypeError("an empty path; name a file or folder ('.' is the current one)")
    return Path(text)


def name(text: str) -> str:
    if not text.strip():
        raise ArgumentTypeError("an empty name; give one, or leave the flag out")
    return text


def mapping(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ArgumentTypeError(f"{text!r} is not JSON ({error}); write it as '{{\"size\": 8}}'") from None
    if not isinstance(value, dict):
        raise ArgumentTypeError(f"{text!r} is no mapping; write it as '{{\"size\": 8}}'")
    return value


def integer(least: int = 1, most: int = INT32) -> Callable[[str], int]:
    return lambda text: _in_range(_parsed(int, text, "a whole number"), least=least, most=most)


def number(*, least: float = -math.inf, above: float = -math.inf, most: float = math.inf) -> Callable[[str], float]:
    return lambda text: _in_range(_parsed(float, text, "a number"), least=least, above=above, most=most)


def _parsed(convert: Callable[[str], Number], text: str, kind: str) -> Number:
    try:
        return convert(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is not {kind}; give one") from None


def _in_range(value: Number, **bounds: float) -> Number:
    try:
        check_range("", value, **bounds)
    except UserError as error:
        raise ArgumentTypeError(f"{error.problem}; {error.remedy}") from None
    return value


count = integer()  # of games, steps, tokens, processes: at least 1
seed = integer(0, INT64)
temperature = number(least=0, most=HOTTEST)
share = number(least=0, most=1)

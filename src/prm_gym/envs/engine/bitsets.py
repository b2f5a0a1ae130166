"""Sets of small numbers as integers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


def mask(numbers: Iterable[int]) -> int:
    """The set of the given numbers."""
    union = 0
    for number in numbers:
        union |= 1 << number
    return union


def split(literals: str) -> tuple[int, int]:
    """The sets of the numbers given as they are, and of those given as complements (`~number`), parted by blanks."""
    true = false = 0
    for literal in map(int, literals.split()):
        if literal >= 0:
            true |= 1 << literal
        else:
            false |= 1 << ~literal
    return true, false


def numbers(mask: int) -> Iterator[int]:
    """The numbers in a set, in order."""
    while mask:
        lowest = mask & -mask
        yield lowest.bit_length() - 1
        mask ^= lowest

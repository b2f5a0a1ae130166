"""Sets of small numbers as integers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


def mask_of(masks: Iterable[int]) -> int:
    """The union of the given sets."""
    union = 0
    for mask in masks:
        union |= mask
    return union


def mask(numbers: Iterable[int]) -> int:
    """The set of the given numbers."""
    return mask_of(1 << number for number in numbers)


def numbers(mask: int) -> Iterator[int]:
    """The numbers in a set, in order."""
    while mask:
        lowest = mask & -mask
        yield lowest.bit_length() - 1
        mask ^= lowest

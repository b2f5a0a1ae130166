"""Cells of the page's tables, formatted for the page and for the CSV files to download."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from prm_gym.report import display_names

Cell = Any
"""A str, an int, a `Percent`, an `Interval`, or None for a dash."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # prefixes of cells that a spreadsheet would evaluate


class Percent(float):
    """A share in [0, 1], shown in % with one digit."""


class Interval(NamedTuple):
    """Two shares in [0, 1], shown in %; two columns of a CSV file."""

    low: float
    high: float


def shown(cell: Cell) -> str:
    """
    >>> [shown(cell) for cell in ("a", 1234, Percent(0.5))]
    ['a', '1,234', '50.0']
    """
    match cell:
        case None:
            return display_names.DASH
        case Percent():
            return display_names.percent(cell)
        case Interval():
            return display_names.interval(*cell)
        case int():
            return f"{cell:,}"
        case _:
            return str(cell)


def as_csv(columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """CSV with a header; numbers without formatting. Text that a spreadsheet would evaluate is prefixed with '.

    >>> print(as_csv(["name", "95%"], [["=1+1", Interval(0.25, 1)]]), end="")
    name,95% low,95% high
    '=1+1,25.00,100.00
    """
    rows = [list(row) for row in rows]
    wide = [any(isinstance(row[i], Interval) for row in rows) for i in range(len(columns))]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    head = zip(columns, wide, strict=True)
    writer.writerow([_inert(name) for column, two in head for name in _names(column, two)])
    for row in rows:
        writer.writerow([value for cell, two in zip(row, wide, strict=True) for value in _values(cell, two)])
    return out.getvalue()


def _names(column: str, two: bool) -> list[str]:
    return [f"{column} low", f"{column} high"] if two else [column]


def _values(cell: Cell, two: bool) -> list[str]:
    match cell:
        case None:
            return ["", ""] if two else [""]
        case Interval():
            return [f"{100 * end:.2f}" for end in cell]
        case Percent():
            return [f"{100 * cell:.2f}"]
        case int() | float():
            return [f"{cell:.6g}" if isinstance(cell, float) else str(cell)]
        case _:
            return [_inert(str(cell)), *([""] if two else [])]


def _inert(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) and not _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True

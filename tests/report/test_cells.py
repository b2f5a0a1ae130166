"""CSV files: numbers are exact, and no text of a run becomes a formula."""

from __future__ import annotations

import csv

from hypothesis import given
from hypothesis import strategies as st

from prm_gym.report.cells import Interval, Percent, as_csv


def read(text: str) -> list[list[str]]:
    return list(csv.reader(text.splitlines(keepends=True)))


def test_every_kind_of_cell_has_its_columns() -> None:
    rows = [["a", 1234, Percent(0.5), Interval(0.25, 1.0), 3.25, "-1.5"], ["b", None, None, None, None, "\N{EN DASH}"]]
    assert read(as_csv(["name", "games", "success %", "95%", "actions", "kl"], rows)) == [
        ["name", "games", "success %", "95% low", "95% high", "actions", "kl"],
        ["a", "1234", "50.00", "25.00", "100.00", "3.25", "-1.5"],
        ["b", "", "", "", "", "", "\N{EN DASH}"],
    ]


@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("=+-@,\"'")), min_size=2, max_size=2
    )
)
def test_text_comes_back_and_never_begins_as_a_formula(texts) -> None:
    [_, found] = read(as_csv(["a", "b"], [texts]))
    assert [cell.removeprefix("'") if cell != text else cell for cell, text in zip(found, texts, strict=True)] == texts
    assert not any(
        cell[:1] in ("=", "+", "@") and not cell.strip("+-").isdigit() and not is_number(cell) for cell in found
    )


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True

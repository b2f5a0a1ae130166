"""Ticks, scales and labels of the figures."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prm_gym.report.svg import Scale, element, nice_ticks, spread

VALUES = st.floats(-1e6, 1e6).map(lambda value: round(value, 6))


@given(VALUES, st.floats(1e-3, 1e6), st.integers(2, 8))
def test_ticks_enclose_the_data_evenly_and_are_few(low, span, most) -> None:
    ticks = nice_ticks(low, low + span, most)
    assert ticks[0] <= low + 1e-6 * span
    assert ticks[-1] >= low + span * (1 - 1e-6)
    assert 2 <= len(ticks) <= most + 2
    gaps = [b - a for a, b in pairwise(ticks)]
    assert gaps == pytest.approx([gaps[0]] * len(gaps), rel=1e-3)


@given(st.lists(st.floats(0, 300), min_size=1, max_size=8))
def test_labels_moved_apart_do_not_overlap_and_keep_their_order(positions) -> None:
    moved = spread(positions, 14)
    order = sorted(range(len(positions)), key=positions.__getitem__)
    assert all(moved[b] - moved[a] >= 14 - 1e-6 for a, b in pairwise(order))
    assert sum(moved) == pytest.approx(sum(positions), abs=1e-3)


def test_a_log_scale_doubles_evenly() -> None:
    x = Scale(1, 32, 0, 100, log=True)
    assert [x(n) for n in (1, 2, 4, 8, 16, 32)] == pytest.approx([0, 20, 40, 60, 80, 100])


def test_elements_escape_what_they_are_given() -> None:
    drawn = element("text", "<a>&", aria_label='"><script>')
    assert drawn == '<text aria-label="&#34;&gt;&lt;script&gt;">&lt;a&gt;&amp;</text>'

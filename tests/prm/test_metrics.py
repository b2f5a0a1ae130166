"""AUC and calibration against counts by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prm_gym.prm.metrics import auc, calibration_bins, calibration_error


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=2, max_size=40))
def test_auc_is_the_share_of_ordered_pairs(visits: list[tuple[int, bool]]) -> None:
    wins = [s for s, won in visits if won]
    losses = [s for s, won in visits if not won]
    scores, positive = np.array([s for s, _ in visits], dtype=float), np.array([won for _, won in visits])
    if not wins or not losses:
        assert auc(scores, positive) is None
        return
    pairs = [1.0 if w > x else 0.5 if w == x else 0.0 for w, x in itertools.product(wins, losses)]
    assert auc(scores, positive) == pytest.approx(sum(pairs) / len(pairs))


def test_calibration_error_by_hand() -> None:
    # Bin 0.0-0.1: two rows, predicted 0.05 on average, target 0.5; bin 0.9-1, which holds 1: 0.95 and 1.0 against 1.
    predicted, target = np.array([0.04, 0.06, 0.95, 1.0]), np.array([0.0, 1.0, 1.0, 1.0])
    bins = calibration_bins(predicted, target)
    assert bins == [pytest.approx((0.05, 0.5, 2)), pytest.approx((0.975, 1.0, 2))]
    assert calibration_error(bins) == pytest.approx((2 * 0.45 + 2 * 0.025) / 4)

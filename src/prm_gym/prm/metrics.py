"""AUC and calibration of predictions in [0, 1]."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bin = tuple[float, float, int]
"""(mean prediction, mean target, count)"""


def auc(scores: Floats, positive: npt.NDArray[np.bool_]) -> float | None:
    """Probability that a positive scores higher than a negative, ties counting one half; None if one class is empty.

    It is the area under the ROC curve and the Mann-Whitney statistic.
    """
    negatives = np.sort(scores[~positive])
    if len(negatives) in (0, len(scores)):
        return None
    below = sum(np.searchsorted(negatives, scores[positive], side) for side in ("left", "right"))
    return float(np.mean(below) / (2 * len(negatives)))


def calibration_bins(predicted: Floats, target: Floats) -> list[Bin]:
    """The non-empty ones of ten equal intervals of the prediction."""
    index = np.minimum((predicted * 10).astype(int), 9)
    members = [index == number for number in range(10)]
    return [(float(predicted[m].mean()), float(target[m].mean()), int(m.sum())) for m in members if m.any()]


def calibration_error(bins: list[Bin]) -> float:
    """Mean |mean prediction - mean target| over the bins, weighted by their counts."""
    return sum(abs(p - t) * n for p, t, n in bins) / sum(n for *_, n in bins)

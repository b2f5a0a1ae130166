"""The figure of the ranking shows the measurements, and is left out without any."""

from __future__ import annotations

from typing import Any

from prm_gym.report.cells import shown
from prm_gym.report.q_figures import calibrations, rankings, rankings_by, remarks


def run(**quality: Any) -> dict[str, Any]:
    measured = {"bins": [], "auc": None, "calibration_error": None, "pairs": 150, "visits": 900, "ranking_by": {}}
    measured |= {"ranking_corrected": None, "ranking_corrected_ci95": None, **quality}
    return {"iterations": [{"n": 1, "quality": None}, {"n": 2, "quality": measured}]}


def test_a_ranking_is_drawn_without_levels() -> None:
    of = run(ranking_accuracy=0.66, ranking_ci95=[0.58, 0.73], ranking_ceiling=0.79)
    [figure] = rankings(of)
    [row] = figure["rows"]
    expected = ["Q\N{SUBSCRIPT ONE}", "150", "66.0", "58\N{EN DASH}73", "\N{EN DASH}", "\N{EN DASH}", "79.0"]
    assert [shown(cell) for cell in row] == expected
    assert "66.0% of 150 pairs" in figure["svg"]
    assert ">ceiling 79.0</text>" in figure["svg"]
    assert list(calibrations(of)) == []


def test_the_corrected_share_stands_beside_the_raw_one() -> None:
    of = run(
        ranking_accuracy=0.66, ranking_ci95=[0.58, 0.73], ranking_ceiling=0.79,
        ranking_corrected=0.81, ranking_corrected_ci95=[0.7, 0.9],
    )  # fmt: skip
    [figure] = rankings(of)
    assert [shown(cell) for cell in figure["rows"][0][4:6]] == ["81.0", "70\N{EN DASH}90"]
    assert "66.0% of 150 pairs" in figure["svg"]
    assert "corrected: 81.0% of 150 pairs" in figure["svg"]


def test_the_split_has_a_row_for_each_kind_of_pair() -> None:
    of_go = {"pairs": 40, "games": 9, "accuracy": 0.6, "ci95": [0.5, 0.7]}
    by = {"both admissible": of_go, "go": of_go | {"pairs": 1234}}
    by = {label: of | {"corrected": 0.65, "corrected_ci95": [0.4, 0.8]} for label, of in by.items()}
    [figure] = rankings_by(run(ranking_by=by))
    assert [[shown(cell) for cell in row] for row in figure["rows"]] == [
        [label, pairs, "9", "60.0", "50\N{EN DASH}70", "65.0", "40\N{EN DASH}80"]
        for label, pairs in (("both admissible", "40"), ("go", "1,234"))
    ]
    assert "go, corrected: 65.0% of 1,234 pairs" in figure["svg"]
    assert list(rankings_by(run())) == []


def test_no_pair_gives_no_figure() -> None:
    assert list(rankings(run(ranking_accuracy=None, ranking_ci95=[0, 1], ranking_ceiling=None))) == []


def test_a_ranking_without_a_ceiling_has_a_dash() -> None:
    [figure] = rankings(run(ranking_accuracy=0.3, ranking_ci95=[0.1, 0.6], ranking_ceiling=None))
    assert shown(figure["rows"][0][-1]) == "\N{EN DASH}"
    assert "ceiling" not in figure["svg"]


def test_a_remark_says_why_a_q_from_pairs_has_neither_targets_nor_calibration() -> None:
    of = {"iterations": [{"n": n, "labels": labels} for n, labels in ((1, "targets"), (2, "pairs"), (3, "pairs"))]}
    [said] = remarks(of)
    assert said.startswith("Q\N{SUBSCRIPT ONE} and Q\N{SUBSCRIPT TWO} each was trained on pairs of actions")
    assert "calibration is not defined" in said
    assert list(remarks({"iterations": [{"n": 1, "labels": "targets"}]})) == []

"""Rules that stop Stage 3, on curves with a known answer."""

from typing import Any

from experiments.stopping_rules import stopping_rules

ONE = {
    "success": {0: 0.5, 20: 0.6, 40: 0.7, 60: 0.4},
    "process reward by the judge": {0: 0.0, 20: 0.5, 40: 0.4, 60: 0.3},
    "lower bound of three Qs": {0: 0.0, 20: 0.1, 40: 0.2, 60: 0.3},
    "value on held-out branches": {0: 0.4, 20: 0.5, 40: 0.6, 60: 0.5},
    "KL from pi_0": {0: 0.0, 20: 1.0, 40: 2.0, 60: 3.0},
}
OTHER = {
    "success": {0: 0.5, 20: 0.8, 40: 0.7, 60: 0.6},
    "process reward by the judge": {0: 0.0, 20: 0.1, 40: 0.2, 60: 0.3},
    "lower bound of three Qs": {0: 0.0, 20: 0.1, 40: 0.2, 60: 0.1},
    "value on held-out branches": {0: 0.4, 20: 0.3, 40: 0.6, 60: 0.5},
    "KL from pi_0": {0: 0.0, 20: 0.5, 40: 1.5, 60: 2.5},
}


def rows(*runs: dict[str, dict[int, float]]) -> list[dict[str, Any]]:
    return [
        {"series": name, "x": x, "per_seed": [run[name][x] for run in runs]} for name in runs[0] for x in runs[0][name]
    ]


def test_the_rules_see_no_success() -> None:
    assert stopping_rules(rows(ONE)) == {
        "step of the highest success": 40,
        "KL there": 2.0,
        "highest success": 0.7,
        "success at the end": 0.4,
        "step of the highest process reward by the judge": 20,
        "success at the highest process reward by the judge": 0.6,
        "step of the highest lower bound of three Qs": 60,
        "success at the highest lower bound of three Qs": 0.4,
        "step of the highest value on held-out branches": 40,
        "success at the highest value on held-out branches": 0.7,
        "step of the first peak of the process reward by the judge": 20,
        "success at the first peak of the process reward by the judge": 0.6,
        "step of the first peak of the lower bound of three Qs": 60,
        "success at the first peak of the lower bound of three Qs": 0.4,
        "step of the first peak of the value on held-out branches": 40,
        "success at the first peak of the value on held-out branches": 0.7,
    }


def test_each_run_is_stopped_by_itself() -> None:
    found = stopping_rules(rows(ONE, OTHER))
    assert found["highest success"] == (0.7 + 0.8) / 2
    assert found["success at the highest process reward by the judge"] == (0.6 + 0.6) / 2


def test_a_budget_of_kl_is_that_of_the_other_runs() -> None:
    """ONE peaks at 2.0, which OTHER spends by step 60; OTHER at 0.5, which ONE has spent by step 20."""
    found = stopping_rules(rows(ONE, OTHER))
    assert found["step of the KL of the other runs' peaks"] == (20 + 60) / 2
    assert found["success at the KL of the other runs' peaks"] == (0.6 + 0.6) / 2


def test_a_first_peak_is_not_the_highest() -> None:
    again = {**ONE, "process reward by the judge": {0: 0.0, 20: 0.3, 40: 0.2, 60: 0.5}}
    found = stopping_rules(rows(again))
    assert found["step of the first peak of the process reward by the judge"] == 20
    assert found["step of the highest process reward by the judge"] == 60

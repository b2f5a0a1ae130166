"""The gain of a recipe over seeds: paired by game, against the plain difference of the means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from experiments import gain
from prm_gym.evaluation.intervals import Outcome

RECIPES = Path(__file__).parents[2] / "recipes"
WON = {  # by policy and seed, a mark a game
    0: ["0000100000", "0100100000"],
    1: ["0110111000", "1110111010"],
}


class Played:
    """Stands for `Variants`: every policy has been evaluated."""

    def __init__(self, recipe: Path, root: Path, seed: int) -> None:
        self.seed = seed

    def run(self, iterations: int) -> list[str]:
        return [f"iteration {n}" for n in range(1, iterations + 1)]

    def evaluated(self, run: str, n: int) -> Outcome:
        assert run == f"iteration {max(n, 1)}"
        return {f"game {i}": ("find", float(mark)) for i, mark in enumerate(WON[n][self.seed])}


def test_success_and_gain_of_each_seed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[Any]) -> None:
    monkeypatch.setattr(gain, "Variants", Played)
    monkeypatch.setenv("COLUMNS", "200")
    gain.main([str(RECIPES / "textworld"), "--seeds", "2"])
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    start, end = (row for row in rows if row and row[0].startswith("pi_"))
    assert (start[1], start[3], start[7]) == ("15.0", "10.0 20.0", "10")
    assert (end[1], end[3], end[7]) == ("60.0", "50.0 70.0", "10")
    assert (end[4], end[6]) == ("+45.0", "+40.0 +50.0")
    low, high = (float(bound) for bound in end[5].split(" to "))
    assert low < 45 < high

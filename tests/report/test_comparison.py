"""Two runs side by side: the results that are compared, and the paired difference against its formula."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path

import pytest
import report_world
from report_world import make_run, play

from prm_gym.cli import main
from prm_gym.errors import UserError
from prm_gym.report.comparison import compare


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """pi_0 and pi_1 of one run, and pi_0 to pi_3 of another, on the same 40 games."""
    monkeypatch.setattr(report_world, "GAMES", 40)
    one, other = make_run(tmp_path / "one", iterations=1), make_run(tmp_path / "other", iterations=3)
    for run in (one, other):
        _change(run, lambda entry: {**entry, "games_fingerprint": "a"})
    return one, other


def _change(run: Path, change) -> None:
    file = run / "results.json"
    file.write_text(json.dumps([change(entry) for entry in json.loads(file.read_text())]))


def _keep(run: Path, policy: str) -> None:
    """Leave nothing but the entry of `policy`."""
    file = run / "results.json"
    file.write_text(json.dumps([entry for entry in json.loads(file.read_text()) if entry["policy"] == policy]))


def test_results_of_one_name_are_compared(runs: tuple[Path, Path]) -> None:
    assert [each.name for each in compare(*runs)] == ["pi_0 valid_unseen", "pi_1 valid_unseen"]


def test_lone_results_are_compared_whatever_their_names(runs: tuple[Path, Path]) -> None:
    _keep(runs[0], "pi_1")
    _keep(runs[1], "pi_3")
    [found] = compare(*runs)
    assert found.name == "pi_1 against pi_3 valid_unseen"


def test_the_difference_is_paired_and_of_the_second_less_the_first(runs: tuple[Path, Path]) -> None:
    _keep(runs[0], "pi_0")
    _keep(runs[1], "pi_3")
    [found] = compare(*runs)
    pairs = [(play("pi_0", game, 0.08), play("pi_3", game, 0.32)) for game in range(40)]
    won = [b.won - a.won for a, b in pairs]
    actions = [b.actions - a.actions for a, b in pairs]
    for difference, values in ((found.success, won), (found.actions, actions)):
        mean, half = statistics.mean(values), 1.959964 * statistics.stdev(values) / math.sqrt(40)
        assert difference is not None
        assert (difference.mean, difference.low, difference.high) == pytest.approx((mean, mean - half, mean + half))
        assert difference.games == 40


def test_other_settings_are_named(runs: tuple[Path, Path]) -> None:
    _change(runs[0], lambda entry: {**entry, "temperature": 0.3})
    _change(runs[1], lambda entry: {**entry, "temperature": 1.0})
    assert {each.settings for each in compare(*runs)} == {"T 0.3 against T 1"}


def test_runs_without_a_common_result_are_refused(runs: tuple[Path, Path]) -> None:
    _change(runs[0], lambda entry: {**entry, "split": "valid_seen"})
    with pytest.raises(UserError, match="no result in common"):
        compare(*runs)


def test_the_command_prints_a_line_for_each(runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", *map(str, runs)]) == 0
    shown = capsys.readouterr().out
    assert "pi_0 valid_unseen" in shown
    assert shown.count("40 paired") == 2

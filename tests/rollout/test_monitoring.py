"""The progress display: totals first when resuming, a bar only with content, and one note at a time."""

from __future__ import annotations

import io
import json
import logging

import pytest
from rich.console import Console
from rollout_world import Corridor, Walker, make_games

from prm_gym.errors import UserError
from prm_gym.rollout import monitoring, rollout
from prm_gym.rollout.monitoring import Monitor
from prm_gym.store import read_episodes
from prm_gym.types import Response

LOG = logging.getLogger("prm_gym.anything")


def shown_by(monkeypatch: pytest.MonkeyPatch, *, terminal: bool) -> io.StringIO:
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=100)
    monkeypatch.setattr(monitoring, "Console", lambda stderr: console)
    return file


def collect(out, per_game):
    return rollout(make_games(6), Walker(), out, rollouts_per_game=per_game, make_env=Corridor, progress=False)


def test_a_rollout_that_goes_on_counts_what_was_there(tmp_path):
    first = collect(tmp_path, 2)
    before = sum(episode.won for episode in read_episodes(tmp_path))
    assert 0 < before < 12, "some were won, some lost"
    assert first.line() == f"12 episodes, {before} won, 0 failed"
    second = collect(tmp_path, 5)
    won = sum(episode.won for episode in read_episodes(tmp_path))
    assert second.line() == f"30 of 30 episodes, {won} won; 12 were there already, 18 are new, 0 failed"
    assert second.success == pytest.approx(won / 30)
    third = collect(tmp_path, 5)
    assert third.line() == f"30 of 30 episodes there already, {won} won; nothing to do"
    assert third.success == pytest.approx(won / 30)
    fewer = collect(tmp_path, 2)
    assert fewer.line() == f"12 of 12 episodes there already, {before} won; nothing to do"


@pytest.mark.parametrize("terminal", [True, False])
def test_a_refusal_before_the_first_response_has_no_bar_above_it(tmp_path, monkeypatch, terminal):
    file = shown_by(monkeypatch, terminal=terminal)

    async def refuse(state):
        raise UserError("server", "refuses", "ask again")

    with pytest.raises(UserError, match="refuses"):
        rollout(make_games(6), Walker(refuse), tmp_path, make_env=Corridor)
    assert file.getvalue() == ""


def test_the_bar_comes_with_the_first_response(tmp_path, monkeypatch):
    file = shown_by(monkeypatch, terminal=False)
    with Monitor(tmp_path) as monitor:
        monitor.expect(10, 4, 3)
        monitor.responded(Response("look", "", "look"))
    assert "4/10 success 75.0%" in file.getvalue()


def test_what_the_library_logs_stands_below_the_bar(tmp_path, monkeypatch):
    file = shown_by(monkeypatch, terminal=True)
    with Monitor(tmp_path) as monitor:
        LOG.info("server answers 500, retry 1 of 6")
        monitor._bar.refresh()
        assert "retry 1 of 6" in file.getvalue()
        monkeypatch.setattr(monitoring, "_SECONDS_OF_A_NOTE", 0.0)
        monitor.responded(Response("look", "", "look"))
        assert monitor._bar.note == "", "gone once the server answers"


def test_faults_of_servers_are_counted_by_kind_and_shown(tmp_path, monkeypatch):
    file = shown_by(monkeypatch, terminal=True)
    with Monitor(tmp_path) as monitor:
        for kind in ("status 500", "time-out", "status 500"):
            LOG.info("a server fails", extra={"fault": kind})
        LOG.info("something else")
        monitor.responded(Response("look", "", "look"))
    assert "server faults 3" in file.getvalue()
    line = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert line["faults"] == {"status 500": 2, "time-out": 1}


def test_without_a_terminal_notes_are_no_flood(tmp_path, monkeypatch):
    file = shown_by(monkeypatch, terminal=False)
    with Monitor(tmp_path):
        for number in range(100):
            LOG.info("server answers 429, retry %d of 6", number)
    assert [line for line in file.getvalue().splitlines() if "429" in line] == ["server answers 429, retry 0 of 6"]


def test_the_loggers_of_a_program_are_left_as_they_were(tmp_path):
    before = logging.getLogger("prm_gym").level, list(logging.getLogger("prm_gym").handlers)
    with Monitor(tmp_path, bar=False):
        pass
    assert (logging.getLogger("prm_gym").level, logging.getLogger("prm_gym").handlers) == before

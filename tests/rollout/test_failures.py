"""Collection that fails: failed episodes are recorded, kills and errors lose nothing that was finished."""

from __future__ import annotations

import asyncio
import json
import signal

import pytest
from rollout_world import Corridor, Walker, content, kill_again_and_again, make_games, run

from prm_gym.errors import UserError
from prm_gym.rollout import draw_games, rollout
from prm_gym.types import State


def test_a_failed_episode_is_recorded_with_its_reason_and_tried_again(tmp_path):
    bad_game = make_games(8)[2].game_id

    async def fail_once(state: State) -> None:
        if state.game_id == bad_game and state.turn == 1:
            raise ConnectionError("the server is gone")

    summary = run(Walker(fail_once), tmp_path, rollouts_per_game=1, max_failed_share=0.2)
    assert (summary.episodes, summary.failures) == (7, 1)
    [line] = (tmp_path / "failures.jsonl").read_text().splitlines()
    failure = json.loads(line)
    assert failure["game_id"] == bad_game
    assert failure["turn"] == 1
    assert failure["stop_reason"] == "policy_error"
    assert failure["reason"] == "ConnectionError: the server is gone"

    run(Walker(), tmp_path, rollouts_per_game=1)
    run(Walker(), tmp_path / "clean", rollouts_per_game=1)
    assert content(tmp_path) == content(tmp_path / "clean")
    assert not (tmp_path / "failures.jsonl").exists()


def test_a_failing_environment_ends_its_own_episode_alone(tmp_path):
    class Broken(Corridor):
        def reset(self, *, options):
            if options["game_file"].endswith("/2"):
                raise OSError("cut off")
            return super().reset(options=options)

    run(Walker(), tmp_path, make_env=Broken, rollouts_per_game=1, max_failed_share=0.5)
    assert len(content(tmp_path)) == 7
    assert json.loads((tmp_path / "failures.jsonl").read_text())["stop_reason"] == "env_error"


def test_the_environment_of_a_failed_episode_plays_no_other(tmp_path):
    made = []

    class Watched(Corridor):
        def __init__(self):
            super().__init__()
            self.played = []
            made.append(self)

        def reset(self, *, options):
            self.played.append(options["game_file"])
            return super().reset(options=options)

    async def fail(state: State) -> None:
        if state.game_id == third.game_id:
            raise ConnectionError("lost")

    third = draw_games(make_games(8), 5)[2]
    options = {"rollouts_per_game": 1, "concurrency": 1, "max_failed_share": 0.2}
    run(Walker(fail), tmp_path, make_env=Watched, **options)
    assert [len(env.played) for env in made] == [3, 5]
    assert all(env.closed for env in made)


def test_too_many_failures_stop_the_run_early_and_lose_nothing(tmp_path):
    failing = {game.game_id for game in make_games(100)[::5]}

    async def fail(state: State) -> None:
        if state.game_id in failing:
            raise ConnectionError("out of luck")

    policy = Walker(fail)
    with pytest.raises(UserError, match=r"failures.jsonl: \d+ of \d+ failed.*out of luck"):
        run(policy, tmp_path, games=100, concurrency=4, max_failed_share=0.1)
    stored = content(tmp_path)
    assert 15 <= len(stored) < 100, "stopped well before the end, with what was finished"


def test_few_failures_in_a_short_run_are_judged_at_its_end(tmp_path):
    async def fail(state: State) -> None:
        raise ConnectionError("always")

    with pytest.raises(UserError, match="3 of 3"):
        run(Walker(fail), tmp_path, games=3, rollouts_per_game=1)


def test_a_user_error_of_the_policy_ends_the_run_at_once(tmp_path):
    async def refuse(state: State) -> None:
        raise UserError("API key", "is wrong", "set another")

    policy = Walker(refuse)
    with pytest.raises(UserError, match="API key"):
        run(policy, tmp_path, concurrency=1)
    assert len(policy.calls) == 1


def test_environments_in_play_are_closed_when_the_run_ends_early(tmp_path):
    made = []

    def make():
        made.append(Corridor())
        return made[-1]

    async def refuse(state: State) -> None:
        await asyncio.sleep(0.01)
        if state.turn == 2:
            raise UserError("API key", "is wrong", "set another")

    with pytest.raises(UserError, match="API key"):
        run(Walker(refuse), tmp_path, make_env=make, concurrency=4)
    assert made
    assert all(env.closed for env in made)


def test_kill_9_and_the_same_command_again_gives_the_same_store(tmp_path):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    kill_again_and_again(killed, ready=lambda: (killed / "provenance.json").exists())
    rollout(make_games(12), Walker(), whole, rollouts_per_game=5, make_env=Corridor, progress=False, concurrency=4)
    assert content(killed) == content(whole)
    assert len(content(whole)) == 60


def test_what_was_finished_before_an_interrupt_is_kept(tmp_path):
    """Ctrl-C keeps finished episodes; those under way leave no trace."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job starts with it ignored
    calls = 0

    async def interrupt(state: State) -> None:
        nonlocal calls
        calls += 1
        if calls == 60:
            signal.raise_signal(signal.SIGINT)

    try:
        with pytest.raises(KeyboardInterrupt):
            run(Walker(interrupt), tmp_path, concurrency=2)
    finally:
        signal.signal(signal.SIGINT, before)
    kept = content(tmp_path)
    assert 2 <= len(kept) < 24
    run(Walker(), tmp_path)
    run(Walker(), tmp_path / "clean")
    assert content(tmp_path) == content(tmp_path / "clean")

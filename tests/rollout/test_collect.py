"""Collection: independence, order, seeds, and the record of a turn."""

from __future__ import annotations

import asyncio
import json
import sys
from importlib.util import find_spec

import pytest
import rollout_world
from rollout_world import Corridor, Walker, child, content, make_games, run

from prm_gym.errors import UserError
from prm_gym.rollout import draw_games
from prm_gym.types import PromptTooLong, Response, State, StopReason, state_key


def test_every_game_is_played_as_often_as_asked_and_counted(tmp_path):
    summary = run(Walker(), tmp_path)
    episodes = content(tmp_path).values()
    assert sorted(episode.game_id for episode in episodes) == sorted(3 * [game.game_id for game in make_games(8)])
    assert summary.episodes == summary.total == 24
    assert summary.won == sum(episode.won for episode in episodes)
    assert summary.actions == sum(episode.actions for episode in episodes)
    assert summary.response_tokens == 5 * summary.actions
    assert summary.invalid_actions == sum(turn.action == "Sing" for episode in episodes for turn in episode.turns)
    assert 0 < summary.invalid_actions < summary.actions


def test_an_episode_is_what_the_environment_and_the_policy_said(tmp_path):
    policy = Walker()
    run(policy, tmp_path)
    asked = {state.key: (state, seed) for state, _, seed in policy.calls}
    for episode in content(tmp_path).values():
        corridor = Corridor()
        observation, info = corridor.reset(options={"game_file": "/x/" + episode.game_id.split("/")[1][5:]})
        observations, actions = [observation], []
        for turn in episode.turns[:-1]:
            assert turn.observation == observations[-1]
            assert turn.admissible_commands == info["admissible_commands"]
            assert turn.state_key == state_key(episode.game_id, observations, actions)
            assert asked[turn.state_key][0].observations == tuple(observations)
            assert turn.action_valid == (turn.action in rollout_world.COMMANDS)
            observation, reward, terminated, truncated, info = corridor.step(turn.action)
            assert (turn.reward, turn.terminated, turn.truncated) == (reward, terminated, truncated)
            observations.append(observation)
            actions.append(turn.action)
        last = episode.turns[-1]
        assert (last.observation, last.action, last.reward) == (observation, "", None)
        assert last.state_key == state_key(episode.game_id, observations, actions)
        assert episode.stop_reason == (StopReason.WON if terminated else StopReason.STEP_LIMIT)


def test_a_slow_episode_holds_no_other_back(tmp_path):
    """One game answers only after every other episode has ended: with any lock-step this would never end."""
    games = make_games(8)
    slow = games[3].game_id
    others_left = asyncio.Event()

    class Watched(Corridor):
        ended = 0

        def step(self, action):
            result = super().step(action)
            Watched.ended += result[2] or result[3]
            if Watched.ended == 7:
                others_left.set()
            return result

    async def before(state: State) -> None:
        if state.game_id == slow:
            await others_left.wait()

    async def bounded():
        from prm_gym.rollout import collect

        work = collect(games, Walker(before), tmp_path, make_env=Watched, progress=False, concurrency=2)
        await asyncio.wait_for(work, 20)

    asyncio.run(bounded())
    assert len(content(tmp_path)) == 8


@pytest.mark.parametrize("concurrency", [1, 3, 100])
def test_concurrency_changes_the_time_alone(tmp_path, concurrency):
    async def jitter(state: State) -> None:
        await asyncio.sleep(hash((state.key, concurrency)) % 5 / 1000)

    run(Walker(), tmp_path / "one", concurrency=1)
    run(Walker(jitter), tmp_path / "many", concurrency=concurrency)
    assert content(tmp_path / "one") == content(tmp_path / "many")


def test_no_more_episodes_at_once_than_asked(tmp_path):
    under_way, most = 0, 0

    async def before(state: State) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.001)
        under_way -= 1

    run(Walker(before), tmp_path, concurrency=5)
    assert most == 5


def test_there_are_no_more_workers_than_episodes(tmp_path):
    tasks = []

    async def count(state):
        tasks.append(len(asyncio.all_tasks()))

    run(Walker(count), tmp_path, games=1, concurrency=100_000)
    assert max(tasks) == 4  # three episodes, and the task that waits for them


def test_seeds_differ_between_turns_episodes_and_runs(tmp_path):
    first, second = Walker(), Walker()
    run(first, tmp_path / "a", seed=1)
    run(second, tmp_path / "b", seed=2)
    seeds = [seed for policy in (first, second) for _, _, seed in policy.calls]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_two_policies_meet_the_same_random_numbers(tmp_path):
    run(Walker(policy_id="a"), tmp_path / "a")
    run(Walker(policy_id="b"), tmp_path / "b")
    a, b = content(tmp_path / "a"), content(tmp_path / "b")
    assert not a.keys() & b.keys()
    assert {e.seed: [t.action for t in e.turns] for e in a.values()} == {
        e.seed: [t.action for t in e.turns] for e in b.values()
    }


def test_the_order_of_games_is_seeded_and_a_larger_drawing_extends_a_smaller_one():
    games = make_games(40)
    assert draw_games(games, 1) == draw_games(reversed(games), 1) != draw_games(games, 2)
    assert draw_games(games, 1, 10) == draw_games(games, 1, 30)[:10]


@pytest.mark.parametrize(
    ("games", "count"), [([], None), (make_games(3) * 2, None), (make_games(3), 4), (make_games(3), 0)]
)
def test_games_that_cannot_be_drawn(games, count):
    with pytest.raises(UserError):
        draw_games(games, 0, count)


def test_more_rollouts_and_games_extend_a_folder(tmp_path):
    run(Walker(), tmp_path / "once", games=8, rollouts_per_game=3)
    run(Walker(), tmp_path / "twice", games=8, max_games=5, rollouts_per_game=2)
    summary = run(Walker(), tmp_path / "twice", games=8, rollouts_per_game=3)
    assert summary.resumed == 10
    assert summary.episodes == 14
    assert content(tmp_path / "once") == content(tmp_path / "twice")


def test_an_episode_says_its_iteration(tmp_path):
    run(Walker(), tmp_path, games=1, iteration=2)
    assert {episode.iteration for episode in content(tmp_path).values()} == {2}


@pytest.mark.parametrize("change", [{"seed": 6}, {"iteration": 1}, {"max_episode_steps": 20}])
def test_a_folder_begun_with_other_settings_is_refused_by_name(tmp_path, change):
    run(Walker(), tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(UserError, match=f"provenance.json: {next(iter(change))}"):
        run(Walker(), tmp_path, **change)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_episodes_of_unknown_settings_are_not_added_to(tmp_path):
    run(Walker(), tmp_path)
    before = content(tmp_path)
    (tmp_path / "provenance.json").unlink()
    with pytest.raises(UserError, match=r"holds episodes without a provenance.json; name another output folder"):
        run(Walker(), tmp_path)
    assert content(tmp_path) == before


@pytest.mark.parametrize("bad", [{"rollouts_per_game": 0}, {"concurrency": 0}, {"max_failed_share": 1.5}])
def test_bad_arguments_are_named_before_work_starts(tmp_path, bad):
    policy = Walker()
    with pytest.raises(UserError, match=next(iter(bad))):
        run(policy, tmp_path / "out", **bad)
    assert not policy.calls
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("turn", "rewards", "truncated"), [(0, [None], [False]), (2, [0, 0, None], [False, True, False])]
)
def test_a_prompt_over_the_context_ends_the_episode_there(tmp_path, turn, rewards, truncated):
    async def refuse(state: State) -> None:
        if state.turn == turn:
            raise PromptTooLong("4097 of 4096 tokens")

    run(Walker(refuse, commands=["go left"]), tmp_path)
    episodes = content(tmp_path).values()
    assert len(episodes) == 24
    for episode in episodes:
        assert episode.stop_reason == StopReason.PROMPT_TOO_LONG
        assert [turn.reward for turn in episode.turns] == rewards
        assert [turn.truncated for turn in episode.turns] == truncated
        assert not any(turn.terminated for turn in episode.turns)


def test_an_empty_action_is_sent_kept_and_marked(tmp_path):
    run(Walker(commands=[""]), tmp_path, games=1)
    for episode in content(tmp_path).values():
        assert {turn.observation for turn in episode.turns[1:]} == {"Nothing happens."}
        assert not any(turn.action_valid for turn in episode.turns)
        assert episode.actions == 8


def test_the_policy_is_closed_and_every_environment_too(tmp_path):
    made = []

    def make():
        made.append(Corridor())
        return made[-1]

    policy = Walker()
    run(policy, tmp_path, make_env=make, concurrency=4)
    assert policy.closed
    assert len(made) <= 4
    assert all(env.closed for env in made)


def test_metrics_are_written(tmp_path):
    summary = run(Walker(), tmp_path)
    last = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["episodes"] == 24
    assert last["success"] == pytest.approx(summary.won / 24)
    assert last["response_tokens"] == summary.response_tokens


def test_tensorboard_when_asked(tmp_path):
    if find_spec("tensorboard") is None:
        pytest.skip("tensorboard is not installed")
    assert child(tmp_path, pause=0, TENSORBOARD="1").wait() == 0
    [events] = (tmp_path / "tensorboard").iterdir()
    assert b"rollout/success" in events.read_bytes()


def test_wandb_that_is_missing_is_a_clear_error(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match="pip install wandb"):
        run(Walker(), tmp_path, wandb_project="x")


def test_response_of_the_policy_is_kept_word_for_word(tmp_path):
    class Odd(Walker):
        async def act(self, state, *, n=1, seed=0):
            return [Response("odd \x00 tëxt\n", "r", "go left", 7, 9)]

    run(Odd(), tmp_path, games=1, rollouts_per_game=1)
    [episode] = content(tmp_path).values()
    first = episode.turns[0]
    assert (first.response, first.reason, first.prompt_tokens, first.response_tokens) == ("odd \x00 tëxt\n", "r", 7, 9)

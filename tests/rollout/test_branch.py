"""Branches: the part shared with the parent, the choice of states and actions, resuming."""

from __future__ import annotations

import json
import random
import shutil
from collections import Counter, defaultdict
from functools import partial

import pytest
from rollout_world import COMMANDS, Corridor, Walker, content, kill_again_and_again, make_games

from prm_gym.errors import UserError
from prm_gym.rollout import rollout, rollout_branches
from prm_gym.types import PromptTooLong, Response


@pytest.fixture
def parents(tmp_path):
    folder = tmp_path / "parents"
    rollout(make_games(4), Walker(), folder, rollouts_per_game=2, make_env=Corridor, progress=False)
    return folder


def run(parents, out, policy=None, **options):
    options = {"make_env": Corridor, "progress": False, "seed": 3, **options}
    return rollout_branches(parents, make_games(4), policy or Walker(), out, **options)


def by_point(branches):
    found = defaultdict(list)
    for episode in branches.values():
        found[episode.parent_id, episode.branch_turn].append(episode)
    return found


def test_a_branch_has_its_parents_history_and_its_own_end(parents, tmp_path):
    run(parents, tmp_path / "out")
    old = content(parents)
    branches = content(tmp_path / "out")
    assert branches
    for episode in branches.values():
        parent, t = old[episode.parent_id], episode.branch_turn
        assert episode.game_id == parent.game_id
        assert episode.turns[:t] == parent.turns[:t]
        assert episode.turns[t].observation == parent.turns[t].observation
        assert episode.turns[t].state_key == parent.turns[t].state_key
        corridor = Corridor()
        corridor.reset(options={"game_file": "/x/" + episode.game_id.split("/")[1][5:]})
        for turn, after in zip(episode.turns, episode.turns[1:], strict=False):
            observation, reward, terminated, truncated, _ = corridor.step(turn.action)
            assert (after.observation, turn.reward, turn.terminated, turn.truncated) == (
                observation,
                reward,
                terminated,
                truncated,
            )
        assert terminated or truncated


@pytest.mark.parametrize("limit", [1, 3])
def test_parents_longer_than_the_limit_are_branched_below_it(parents, tmp_path, limit):
    options = {"make_env": partial(Corridor, limit), "max_episode_steps": limit, "states_per_episode": 2}
    summary = run(parents, tmp_path / "out", samples=30, **options)
    longest = max(episode.actions for episode in content(parents).values())
    branches = content(tmp_path / "out").values()
    assert longest > limit
    assert summary.failures == 0
    assert {episode.branch_turn for episode in branches} <= set(range(limit))
    assert max(episode.actions for episode in branches) == limit
    assert {episode.stop_reason for episode in branches if not episode.won} == {"step_limit"}


def test_the_actions_at_a_state_differ_and_each_is_continued_as_often_as_asked(parents, tmp_path):
    run(parents, tmp_path / "out", actions_per_state=3, continuations=4, samples=30)
    points = by_point(content(tmp_path / "out"))
    assert len(points) == sum(episode.actions for episode in content(parents).values())
    for (_, t), branches in points.items():
        tried = Counter(episode.turns[t].action for episode in branches)
        assert len(tried) == 3
        assert set(tried.values()) == {4}
        assert len({episode.seed for episode in branches}) == 12


def test_the_candidates_are_the_first_different_actions_sampled(parents, tmp_path):
    policy = Walker()
    run(parents, tmp_path / "out", policy, samples=6)
    expected = defaultdict(list)  # several parents may pass through one state
    for state, n, seed in policy.calls:
        if n == 6:
            rng = random.Random(seed)
            sampled = [rng.choice(policy.commands) for _ in range(n)]
            expected[state.key].append(set(list(dict.fromkeys(sampled))[:2]))
    for (_, t), branches in by_point(content(tmp_path / "out")).items():
        assert {episode.turns[t].action for episode in branches} in expected[branches[0].turns[t].state_key]


def test_of_responses_with_one_action_the_first_is_executed(parents, tmp_path):
    class Numbered(Walker):
        async def act(self, state, *, n=1, seed=0):
            actions = ["go left", "go left", "open door", "go left"][:n]
            return [Response(f"{number}: {action}", "", action) for number, action in enumerate(actions)]

    run(parents, tmp_path / "out", Numbered(), samples=4)
    executed = {episode.turns[episode.branch_turn].response for episode in content(tmp_path / "out").values()}
    assert executed == {"0: go left", "2: open door"}


def test_proposals_choose_the_actions_and_the_policy_goes_on_from_there(parents, tmp_path):
    asked, going_on = Walker(commands=["go left"]), Walker(commands=["go right"])
    run(parents, tmp_path / "out", going_on, proposals=asked, samples=5)
    assert {n for _, n, _ in asked.calls} == {5}
    assert {n for _, n, _ in going_on.calls} == {1}
    for episode in content(tmp_path / "out").values():
        taken = [turn.action for turn in episode.turns[episode.branch_turn : episode.actions]]
        assert taken == ["go left"] + ["go right"] * (len(taken) - 1)


def test_the_response_at_the_branch_is_the_one_sampled_there(parents, tmp_path):
    run(parents, tmp_path / "out")
    for episode in content(tmp_path / "out").values():
        turn = episode.turns[episode.branch_turn]
        assert turn.response == f"REASON: because\nACTION: {turn.action}"
        assert turn.response_tokens == 5
        assert turn.action_valid == (turn.action in COMMANDS)


def test_the_response_at_the_branch_keeps_its_log_probabilities_also_when_resumed(parents, tmp_path):
    for resumed in (False, True):
        policy = Walker()
        run(parents, tmp_path / "out", policy, samples=6, continuations=1 + resumed)
        drawn = defaultdict(dict)
        for line in (tmp_path / "out" / "branch_points.jsonl").read_text().splitlines():
            entry = json.loads(line)
            for point in entry["points"]:
                for action in point["actions"]:
                    logprobs = action["logprob"], action["sampling_logprob"]
                    drawn[entry["parent_id"], point["turn"]][action["action"]] = logprobs
        if not resumed:
            asked = {(-seed % 64 / 8, -seed % 32 / 8) for _, n, seed in policy.calls if n == 6}
            assert {logprobs for point in drawn.values() for logprobs in point.values()} <= asked
        branches = content(tmp_path / "out")
        for episode in branches.values():
            turn = episode.turns[episode.branch_turn]
            wanted = drawn[episode.parent_id, episode.branch_turn][turn.action]
            assert (turn.logprob, turn.sampling_logprob) == wanted


def test_a_policy_with_one_idea_gives_one_branch(parents, tmp_path):
    run(parents, tmp_path / "out", Walker(commands=["go right"]), continuations=2)
    assert {len(branches) for branches in by_point(content(tmp_path / "out")).values()} == {2}


def test_a_draw_of_states_is_seeded_and_nested(parents, tmp_path):
    for name, count, seed in (("two", 2, 3), ("four", 4, 3), ("other", 2, 4)):
        run(parents, tmp_path / name, states_per_episode=count, seed=seed)
    two, four, other = (set(by_point(content(tmp_path / name))) for name in ("two", "four", "other"))
    assert two < four
    assert two != other
    assert set(Counter(parent for parent, _ in two).values()) == {2}


def test_each_parent_has_a_draw_of_its_own(parents, tmp_path):
    run(parents, tmp_path / "out", states_per_episode=2)
    turns = defaultdict(set)
    for parent, turn in by_point(content(tmp_path / "out")):
        turns[parent].add(turn)
    of_one_length = [turns[parent] for parent, episode in content(parents).items() if episode.actions == 8]
    assert len(of_one_length) > 1
    assert len({frozenset(drawn) for drawn in of_one_length}) > 1


def test_a_branch_is_of_its_own_iteration(parents, tmp_path):
    run(parents, tmp_path / "out", states_per_episode=1, iteration=2)
    assert {episode.iteration for episode in content(tmp_path / "out").values()} == {2}


def test_invalid_actions_of_the_parent_are_not_counted_again(parents, tmp_path):
    summary = run(parents, tmp_path / "out", Walker(commands=["go left", "go right"]))
    turns = [turn for episode in content(tmp_path / "out").values() for turn in episode.turns]
    assert any(turn.action == "Sing" for turn in turns)
    assert summary.invalid_actions == 0


def test_branches_of_branches_start_where_their_parents_became_their_own(parents, tmp_path):
    run(parents, tmp_path / "first", states_per_episode=1)
    run(tmp_path / "first", tmp_path / "second")
    first = content(tmp_path / "first")
    points = by_point(content(tmp_path / "second"))
    assert points
    assert all(t >= first[parent].branch_turn for parent, t in points)


def test_resets_are_one_action_and_one_continuation(parents, tmp_path):
    summary = run(parents, tmp_path / "out", states_per_episode=1, actions_per_state=1, samples=1)
    assert summary.episodes == len(content(parents)) == len(content(tmp_path / "out"))


def test_several_folders_of_parents(parents, tmp_path):
    rollout(make_games(4), Walker(), tmp_path / "more", seed=9, make_env=Corridor, progress=False)
    run([parents, tmp_path / "more"], tmp_path / "out", states_per_episode=1)
    assert {parent for parent, _ in by_point(content(tmp_path / "out"))} == {
        *content(parents),
        *content(tmp_path / "more"),
    }


def test_a_parent_in_two_folders_is_one_parent(parents, tmp_path):
    shutil.copytree(parents, tmp_path / "copy")
    run(parents, tmp_path / "once")
    run([parents, tmp_path / "copy"], tmp_path / "twice")
    assert content(tmp_path / "twice") == content(tmp_path / "once")


def test_parents_with_the_ids_of_others_are_refused(parents, tmp_path):
    rollout(make_games(4), Walker(), tmp_path / "short", make_env=partial(Corridor, 1), progress=False)
    with pytest.raises(UserError, match=r"^parents: hold two episodes .*; branch from these folders one by one$"):
        run([parents, tmp_path / "short"], tmp_path / "out")
    with pytest.raises(UserError, match=r"^parents: a folder is given twice; name each folder once$"):
        run([parents, parents], tmp_path / "out")


@pytest.mark.parametrize("concurrency", [1, 50])
def test_concurrency_changes_the_time_alone(parents, tmp_path, concurrency):
    run(parents, tmp_path / "a", continuations=2, concurrency=8)
    run(parents, tmp_path / "b", continuations=2, concurrency=concurrency)
    assert content(tmp_path / "a") == content(tmp_path / "b")


def test_the_points_once_drawn_stay_when_the_policy_would_draw_others(parents, tmp_path):
    async def fail(state):
        if len(policy.calls) > 60:
            raise UserError("server", "is down", "start it")

    policy = Walker(fail)
    with pytest.raises(UserError, match="server"):
        run(parents, tmp_path / "out", policy)
    drawn = (tmp_path / "out" / "branch_points.jsonl").read_text()
    assert drawn
    (tmp_path / "out" / "branch_points.jsonl").write_text(drawn + '{"parent_id": "torn')
    run(parents, tmp_path / "out", Walker(commands=["go left", "go right"]))
    now = (tmp_path / "out" / "branch_points.jsonl").read_text()
    assert now.startswith(drawn)
    assert "torn" not in now
    points = by_point(content(tmp_path / "out"))
    for line in now.splitlines():
        entry = json.loads(line)
        for point in entry["points"]:
            wanted = {action["action"] for action in point["actions"]}
            assert {e.turns[e.branch_turn].action for e in points[entry["parent_id"], point["turn"]]} == wanted


def test_more_continuations_extend_a_folder(parents, tmp_path):
    run(parents, tmp_path / "once", continuations=3)
    run(parents, tmp_path / "twice", continuations=1)
    run(parents, tmp_path / "twice", continuations=3)
    assert content(tmp_path / "once") == content(tmp_path / "twice")


def test_a_parent_that_does_not_replay_is_an_error_of_that_episode(parents, tmp_path):
    class Other(Corridor):
        def step(self, action):
            observation, *rest = super().step(action)
            return (observation + "!", *rest)

    with pytest.raises(UserError, match="shows another observation"):
        run(parents, tmp_path / "out", make_env=Other)


def test_a_failed_draw_is_recorded_and_drawn_again(parents, tmp_path):
    unlucky = next(iter(content(parents)))
    key = content(parents)[unlucky].turns[0].state_key
    hits = []

    async def fail(state):
        if state.key == key and not hits:
            hits.append(1)
            raise ConnectionError("lost")

    summary = run(parents, tmp_path / "out", Walker(fail), states_per_episode=1, concurrency=1, max_failed_share=0.2)
    assert summary.failures == 1
    assert json.loads((tmp_path / "out" / "failures.jsonl").read_text())["episode_id"] == unlucky
    run(parents, tmp_path / "out", states_per_episode=1)
    run(parents, tmp_path / "clean", states_per_episode=1)
    assert content(tmp_path / "out") == content(tmp_path / "clean")


def test_failed_draws_are_judged_beside_those_that_went_well(tmp_path):
    """20 failed draws of 200 are a tenth, however few episodes were played so far."""
    rollout(make_games(200), Walker(), tmp_path / "parents", make_env=Corridor, progress=False)
    failing = {game.game_id for game in make_games(200)[:20]}

    async def fail(state):
        if state.game_id in failing:
            raise ConnectionError("lost")

    options = {"make_env": Corridor, "progress": False, "states_per_episode": 1}
    with pytest.raises(UserError, match=r"\d+ of \d+ failed"):
        rollout_branches(
            tmp_path / "parents", make_games(200), Walker(fail), tmp_path / "a", max_failed_share=0.02, **options
        )
    summary = rollout_branches(
        tmp_path / "parents", make_games(200), Walker(fail), tmp_path / "b", max_failed_share=0.25, **options
    )
    assert summary.failures == 20


def test_no_branch_where_the_prompt_does_not_fit(parents, tmp_path):
    async def refuse(state):
        if state.turn >= 1:
            raise PromptTooLong("too long")

    run(parents, tmp_path / "out", Walker(refuse))
    assert {t for _, t in by_point(content(tmp_path / "out"))} == {0}


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"samples": 1}, "samples"),
        ({"continuations": 0}, "continuations"),
    ],
)
def test_bad_arguments_are_named(parents, tmp_path, bad, said):
    with pytest.raises(UserError, match=said):
        run(parents, tmp_path / "out", **bad)
    assert not (tmp_path / "out").exists()


def test_a_folder_cannot_be_its_own_parent(parents):
    with pytest.raises(UserError, match="folder of parents"):
        run(parents, parents)


def test_a_game_that_is_not_there_is_named(parents, tmp_path):
    with pytest.raises(UserError, match="games: train/walk"):
        rollout_branches(parents, make_games(1), Walker(), tmp_path / "out", make_env=Corridor, progress=False)


def test_kill_9_and_the_same_command_again_gives_the_same_store(tmp_path):
    parents, killed = tmp_path / "parents", tmp_path / "killed"
    rollout(make_games(12), Walker(), parents, make_env=Corridor, progress=False)
    kill_again_and_again(killed, str(parents), ready=lambda: (killed / "metrics.jsonl").exists() or killed.exists())
    rollout_branches(
        parents, make_games(12), Walker(), tmp_path / "whole", make_env=Corridor, continuations=3, progress=False
    )
    assert content(killed) == content(tmp_path / "whole")


@pytest.mark.parametrize("line", ["{", "[]", '{"parent_id": "x"}', '{"parent_id": "x", "points": [{"turn": 1}]}'])
def test_a_damaged_line_of_points_is_named(parents, tmp_path, line):
    run(parents, tmp_path / "out")
    file = tmp_path / "out" / "branch_points.jsonl"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([lines[0], line, *lines[2:]]) + "\n")
    with pytest.raises(UserError, match=f"^{file}: line 2 cannot be read .*; remove that line"):
        run(parents, tmp_path / "out")

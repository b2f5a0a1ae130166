"""`preferences` against all pairs of the Monte Carlo targets with their margin."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from label_worlds import counts, discounted, play, prompt_of, rows, straight, template, text, tree, write

from prm_gym.errors import UserError
from prm_gym.labels import preferences
from prm_gym.types import Episode, StopReason, Turn


def oracle(episodes: list[Episode], gamma: float, delta: float) -> dict[tuple[str, str, str], float]:
    returns: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for episode in filter(counts, episodes):
        for turn in range(episode.branch_turn, episode.actions):
            returns[prompt_of(episode, turn)][episode.turns[turn].action].append(discounted(episode, turn, gamma))
    pairs = {}
    for state, actions in returns.items():
        q = {action: sum(found) / len(found) for action, found in actions.items()}
        for better in q:
            for worse in q:
                if q[better] - q[worse] >= delta:
                    pairs[state, better, worse] = q[better] - q[worse]
    return pairs


@pytest.mark.parametrize(("gamma", "delta"), [(0.5, 0.001), (0.95, 0.3), (1.0, 0.001)])
def test_pairs_are_all_those_with_the_margin(tmp_path: Path, gamma: float, delta: float) -> None:
    episodes = tree()
    report = preferences.label(
        [write(tmp_path / "in", episodes)], tmp_path / "out", gamma=gamma, delta=delta, prompt=template(tmp_path)
    )
    reasons = {(prompt_of(e, t), e.turns[t].action, e.turns[t].reason) for e in episodes for t in range(e.actions)}
    found = {}
    for row in rows(tmp_path / "out"):
        state = text(row["prompt"])
        sides = [text(row[side]).split("#") for side in ("chosen", "rejected")]
        for reason, action in sides:
            assert (state, action, reason) in reasons
        found[state, sides[0][1], sides[1][1]] = row["margin"]
    expected = oracle(episodes, gamma, delta)
    assert len(rows(tmp_path / "out")) == len(expected) > 20
    assert found == pytest.approx(expected)
    assert report.statistics["states with a pair"] == len({state for state, _, _ in expected})


def test_a_margin_of_exactly_delta_is_a_pair(tmp_path: Path) -> None:
    """A win one step later: 0.95 - 0.9025 is 0.04749999999999999 in floating point."""
    episodes = [play(number, games=1) for number in (0, 1)]
    for episode, action, length in zip(episodes, ("go", "take"), (2, 3), strict=True):
        first = episode.turns[0]
        episode.turns = [replace(first, turn=turn, action=action, reward=0.0) for turn in range(length + 1)]
        episode.turns[-2].reward, episode.turns[-1].reward, episode.stop_reason = 1.0, None, "won"
    folder = write(tmp_path / "in", episodes)
    preferences.label([folder], tmp_path / "out", delta=0.0475, prompt=template(tmp_path))
    assert [row["margin"] for row in rows(tmp_path / "out")] == [0.0475]


def test_a_rejected_response_without_an_action_is_kept_as_it_was(tmp_path: Path) -> None:
    silent = replace(straight(1, 1, won=False), episode_id="silent")
    silent.turns[0] = replace(silent.turns[0], action="", action_valid=False, response="hm, let me see")
    folder = write(tmp_path / "in", [silent, straight(1, 1, won=True)])
    preferences.label([folder], tmp_path / "out", prompt=template(tmp_path))
    assert [text(row["rejected"]) for row in rows(tmp_path / "out")] == ["hm, let me see"]


def test_actions_that_are_alike_give_no_pair(tmp_path: Path) -> None:
    episodes = [e for e in tree() if not e.won]
    with pytest.raises(UserError, match="no row"):
        preferences.label([write(tmp_path / "in", episodes)], tmp_path / "out", prompt=template(tmp_path))
    assert not (tmp_path / "out").exists()


def action_of(messages: Any) -> str:
    return text(messages).split("#")[1]


def test_tried_inadmissible_actions_are_ordered_by_the_environment_and_the_others_by_q(tmp_path: Path) -> None:
    """`put` is inadmissible, `go` changes the admissible commands and `take` does not."""
    episodes = tree()
    for episode in episodes:
        for before, turn in zip(episode.turns, episode.turns[1:], strict=False):
            added = [f"way {turn.turn}"] * (before.action == "go")
            turn.admissible_commands = (before.admissible_commands or []) + added
    folder = write(tmp_path / "in", episodes)
    options = {"gamma": 0.5, "delta": 0.001, "prompt": template(tmp_path), "inadmissible": 2}
    report = preferences.label([folder], tmp_path / "out", **options)
    tried = defaultdict(set)
    for episode in filter(counts, episodes):
        for turn in range(episode.branch_turn, episode.actions):
            tried[prompt_of(episode, turn)].add(episode.turns[turn].action)
    pairs = {
        (text(row["prompt"]), action_of(row["chosen"]), action_of(row["rejected"])): row["margin"]
        for row in rows(tmp_path / "out")
    }
    by_q = {key: margin for key, margin in oracle(episodes, 0.5, 0.001).items() if {"go", "put"} != {*key[1:]}}
    by_rule = {(state, "go", "put") for state, actions in tried.items() if {"go", "put"} <= actions}
    assert len(by_rule) > 20
    assert {key: margin for key, margin in pairs.items() if margin is not None} == pytest.approx(by_q)
    assert {key for key, margin in pairs.items() if margin is None} == by_rule  # nothing else is inadmissible
    assert report.statistics["pairs by the environment"] == len(by_rule)


def test_an_action_that_loses_is_not_preferred_to_an_inadmissible_one(tmp_path: Path) -> None:
    """`fall` ends the episode, where no command is left, with Q = 0; after the inadmissible `sing` it is won."""

    def episode(number: int, game: str, *taken: tuple[str, bool, float], stop: str) -> Episode:
        turns = [
            Turn(t, f"o {taken[:t]}", ["fall", "walk"], response=a, action=a, action_valid=valid, reward=paid)
            for t, (a, valid, paid) in enumerate(taken)
        ]
        turns[-1].terminated = True
        turns.append(Turn(len(taken), "the end", []))
        return Episode(f"e{number}", game, "train", "t", "k", "pi_0", 0, number, stop, turns)

    episodes = []
    for number in range(0, 20, 2):
        game = f"g{number}"
        episodes.append(episode(number, game, ("fall", True, 0.0), stop="lost"))
        episodes.append(episode(number + 1, game, ("sing", False, 0.0), ("walk", True, 1.0), stop="won"))
    preferences.label([write(tmp_path / "in", episodes)], tmp_path / "out", prompt=template(tmp_path), inadmissible=1)
    chosen = {action_of(row["chosen"]) for row in rows(tmp_path / "out")}
    assert "fall" not in chosen
    assert "sing" in chosen


def test_untried_inadmissible_commands_lose_to_the_best_action(tmp_path: Path) -> None:
    """`go <n>` is admissible at turn n alone, and changes the commands. `put` becomes a tried `go` of the next turn."""
    episodes = tree()
    for episode in episodes:
        for turn in episode.turns:
            turn.admissible_commands = ["take", f"go {turn.turn}"]
            turn.action = {"go": f"go {turn.turn}", "put": f"go {turn.turn + 1}"}.get(turn.action, turn.action)
    folder = write(tmp_path / "in", episodes)
    options = {"gamma": 0.5, "delta": 0.001, "prompt": template(tmp_path), "inadmissible": 2}
    preferences.label([folder], tmp_path / "out", **options)
    turns = [(episode, turn) for episode in filter(counts, episodes) for turn in range(episode.actions)]
    tried = {(prompt_of(e, t), e.turns[t].action) for e, t in turns if t >= e.branch_turn}
    earlier = {prompt_of(e, t): {turn.action for turn in e.turns[:t]} for e, t in turns}
    found = rows(tmp_path / "out")
    keys = [(text(row["prompt"]), action_of(row["chosen"]), action_of(row["rejected"])) for row in found]
    assert len(keys) == len(set(keys))
    added = defaultdict(set)
    for row, (state, chosen, rejected) in zip(found, keys, strict=True):
        if row["margin"] is None and (state, rejected) not in tried:
            assert rejected.startswith("go ")
            assert rejected != f"go {row['turn']}"
            assert chosen in ("take", f"go {row['turn']}")
            added[state].add(rejected)
    assert len(added) > 20
    assert {len(commands) for commands in added.values()} == {2}
    repeated = 0
    for row in found:
        state, here = text(row["prompt"]), {"take", f"go {row['turn']}"}
        if state in added:
            first = {action for action in earlier[state] - here if (state, action) not in tried}
            assert first <= added[state] or added[state] <= first, "commands of the episode so far come first"
            repeated += bool(first)
    assert repeated > 20


def test_untried_commands_are_drawn_by_how_often_they_are_given(tmp_path: Path) -> None:
    """One command at each of 300 states, of two that are given elsewhere in a ratio of 4 to 1."""

    def single(number: int, game: str, action: str, commands: list[str], won: bool) -> Episode:
        episode = play(number)
        first, last = episode.turns[0], episode.turns[-1]
        changes = {"action_valid": True, "reward": float(won), "terminated": won}
        first = replace(first, action=action, admissible_commands=commands, observation=f"start of {game}", **changes)
        turns = [first, replace(last, turn=1, admissible_commands=["stop"])]
        stop = StopReason.WON if won else StopReason.STEP_LIMIT
        return replace(episode, game_id=game, turns=turns, stop_reason=stop)

    episodes = [
        single(2 * game + won, f"asked-{game}", ["lose", "win"][won], ["lose", "win"], bool(won))
        for game in range(300)
        for won in (0, 1)
    ]
    others = ["often"] * 80 + ["seldom"] * 20
    episodes += [single(1000 + n, f"other-{n}", action, [action], True) for n, action in enumerate(others)]
    folder = write(tmp_path / "in", episodes)
    preferences.label([folder], tmp_path / "out", prompt=template(tmp_path), inadmissible=1)
    drawn = Counter(action_of(row["rejected"]) for row in rows(tmp_path / "out"))
    assert drawn["lose"] == drawn["often"] + drawn["seldom"] == 300
    assert 0.7 < drawn["often"] / 300 < 0.9  # four standard deviations about 0.8


def test_the_order_of_rows_is_fixed(tmp_path: Path) -> None:
    """Rows of one state and chosen action differ in the rejected one, which decides."""
    preferences.label(
        [write(tmp_path / "in", tree())], tmp_path / "out", gamma=0.5, delta=0.001, prompt=template(tmp_path)
    )
    keys = [(row["split"], text(row["prompt"]), action_of(row["chosen"])) for row in rows(tmp_path / "out")]
    rejected = [action_of(row["rejected"]) for row in rows(tmp_path / "out")]
    ties = [(a, b) for one, other, a, b in zip(keys, keys[1:], rejected, rejected[1:], strict=False) if one == other]
    assert len(ties) > 5
    assert all(a < b for a, b in ties)


def test_inadmissible_needs_to_know_what_is_admissible(tmp_path: Path) -> None:
    episodes = tree()
    episodes[3].turns[0].action_valid = None
    with pytest.raises(UserError, match="inadmissible: some actions are not known to be admissible"):
        preferences.label([write(tmp_path / "in", episodes)], tmp_path / "out", inadmissible=1)
    with pytest.raises(UserError, match="inadmissible: valid_only leaves no inadmissible action"):
        preferences.label([tmp_path / "in"], tmp_path / "out", inadmissible=1, valid_only=True)

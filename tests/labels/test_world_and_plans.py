"""`world` and `plans` against the episodes themselves."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from label_worlds import counts, prompt_of, rows, straight, template, text, tree, write

from prm_gym.errors import UserError
from prm_gym.labels import plans, world
from prm_gym.types import Episode


def told(episode: Episode) -> list[dict[str, str]]:
    """The conversation of the whole episode as the world sees it, written out by hand."""
    chat = []
    for turn, after in zip(episode.turns[:-1], episode.turns[1:], strict=True):
        first = f"{turn.observation}\n\n" if turn.turn == 0 else ""
        chat.append({"role": "user", "content": first + turn.action})
        won = " [won]" if turn.terminated else ""
        chat.append({"role": "assistant", "content": after.observation + won})
    return chat


def outcome(episode: Episode) -> tuple[Any, ...]:
    return prompt_of(episode, episode.actions), episode.parent_id is None, episode.won


def test_world_rows_are_all_conversations_once_with_the_roles_exchanged(tmp_path: Path) -> None:
    episodes = [e for e in tree(300) if counts(e) and e.actions > e.branch_turn]
    world.label([write(tmp_path / "in", tree(300))], tmp_path / "out", prompt="world_compact")
    found = rows(tmp_path / "out")
    expected = {outcome(e): told(e) for e in episodes}
    assert Counter(repr(row["prompt"] + row["completion"]) for row in found) == Counter(map(repr, expected.values()))
    assert any("[won]" in str(row) for row in found)
    assert any("[won]" not in str(row) for row in found)


def test_the_last_answer_tells_how_the_episode_ended(tmp_path: Path) -> None:
    """All texts are the same, so the mark alone tells the conversations apart."""
    episodes = [
        replace(straight(1, 3, won=stop == "won"), episode_id=stop, stop_reason=stop)
        for stop in ("won", "lost", "step_limit", "prompt_too_long")
    ]
    world.label([write(tmp_path / "in", episodes)], tmp_path / "out", prompt="world_compact")
    last = Counter(row["completion"][-1]["content"] for row in rows(tmp_path / "out"))
    assert last == {"end 1 [won]": 1, "end 1 [over]": 1, "end 1": 1}


def test_with_a_prompt_of_a_single_turn_a_row_is_a_turn(tmp_path: Path) -> None:
    world.label([write(tmp_path / "in", [straight(1, 3, won=True)])], tmp_path / "out", prompt=template(tmp_path))
    said = [text(row["completion"]) for row in rows(tmp_path / "out")]
    assert said == ["#game-0 seen 1.1", "#game-0 seen 1.2", "#end 1 [won]"]


def test_a_branch_trains_on_its_own_turns_alone(tmp_path: Path) -> None:
    world.label([write(tmp_path / "in", tree(300))], tmp_path / "out", prompt="world_compact")
    begins = {(repr(told(e)), 2 * e.branch_turn + 1) for e in tree(300)}  # messages up to the first action of its own
    found = rows(tmp_path / "out")
    assert {(repr(row["prompt"] + row["completion"]), len(row["prompt"])) for row in found} <= begins
    assert any(len(row["prompt"]) > 1 for row in found)


def test_the_world_that_is_told_what_to_do_has_a_system_message(tmp_path: Path) -> None:
    world.label([write(tmp_path / "in", tree(20))], tmp_path / "out")
    for row in rows(tmp_path / "out"):
        assert [message["role"] for message in row["prompt"][:2]] == ["system", "user"]
        assert row["prompt"][-1]["role"] == "user"
        assert row["completion"][-1]["role"] == "assistant"


def test_a_plan_is_the_next_actions_of_the_won_episode(tmp_path: Path) -> None:
    episodes = tree(300)
    plans.label([write(tmp_path / "in", episodes)], tmp_path / "out", prompt=template(tmp_path), horizon=2)
    expected = Counter()
    for e in {outcome(e): e for e in episodes if e.won and not e.parent_id}.values():
        actions = [turn.action for turn in e.turns[:-1]]
        for t, action in enumerate(actions):
            plan = f"Plan: 1. {action}" + (f"; 2. {actions[t + 1]}" if t + 1 < len(actions) else "")
            expected[prompt_of(e, t), f"{plan}#{action}"] += 1
    found = Counter((row["prompt"][0]["content"], row["completion"][0]["content"]) for row in rows(tmp_path / "out"))
    assert found == expected


def test_a_turn_without_an_action_has_no_plan(tmp_path: Path) -> None:
    episode = straight(1, 4, won=True)
    episode.turns[1] = replace(episode.turns[1], action="", response="I do not know")
    report = plans.label([write(tmp_path / "in", [episode])], tmp_path / "out", prompt=template(tmp_path))
    action = episode.turns[0].action
    said = [f"Plan: {'; '.join(f'{k}. {action}' for k in range(1, n + 1))}#{action}" for n in (3, 2, 1)]
    assert [row["completion"][0]["content"] for row in rows(tmp_path / "out")] == said
    assert report.skipped["turns without an action"] == 1


def test_a_prompt_that_shows_no_reason_shows_no_plan(tmp_path: Path) -> None:
    folder = write(tmp_path / "in", tree(20))
    with pytest.raises(UserError, match="shows no reason, so no plan"):
        plans.label([folder], tmp_path / "out", prompt="compact")


def test_a_prompt_of_policies_is_refused_as_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"full lists the admissible commands, which a world model .*name world"):
        world.label([write(tmp_path / "in", tree(5))], tmp_path / "out", prompt="full")
    assert not (tmp_path / "out").exists()

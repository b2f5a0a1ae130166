"""The thirteen data defects of the paper's first implementation, with one test against each."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from label_worlds import ACTIONS, key_of, play, rows, straight, template, text, tree, write

from prm_gym.errors import UserError
from prm_gym.labels import inverse, monte_carlo, preferences, shaping, value
from prm_gym.prompts import load
from prm_gym.types import Episode, Response, State


class Stub:
    policy_id = "pi_now"

    async def settings(self) -> dict[str, object]:
        return {}

    async def act(self, state: State, *, n: int = 1, seed: int = 0) -> list[Response]:
        await asyncio.sleep(0)
        return [Response("", "fresh", f"after {state.observations[-1]}") for _ in range(n)]

    async def close(self) -> None: ...


def run_inverse(tmp_path: Path, learners: list[Episode], experts: list[Episode]) -> list[dict[str, Any]]:
    folders = write(tmp_path / "learners", learners), write(tmp_path / "experts", experts)
    inverse.label([folders[0]], tmp_path / "out", expert=[folders[1]], policy=Stub(), prompt=template(tmp_path))
    return rows(tmp_path / "out")


def label(tmp_path: Path, episodes: list[Episode], **options: Any) -> list[dict[str, Any]]:
    monte_carlo.label([write(tmp_path / "in", episodes)], tmp_path / "out", prompt=template(tmp_path), **options)
    return rows(tmp_path / "out")


def test_1_the_history_is_observations_and_executed_actions_as_inference_shows_them(tmp_path: Path) -> None:
    episodes = [e for e in tree(30, branches=0) if e.won]
    monte_carlo.label([write(tmp_path / "in", episodes)], tmp_path / "out", prompt="full")
    shown = {repr(load("full").messages(e.state_at(t))) for e in episodes for t in range(e.actions)}
    assert {repr(row["prompt"]) for row in rows(tmp_path / "out")} == shown


def test_2_early_steps_of_a_success_get_less(tmp_path: Path) -> None:
    found = label(tmp_path, [straight(1, 5, won=True)], gamma=0.5)
    assert [row["target"] for row in found] == [0.0625, 0.125, 0.25, 0.5, 1.0]


def test_3_a_failure_is_worth_0_at_every_step(tmp_path: Path) -> None:
    found = label(tmp_path, [straight(1, 30, won=False)])
    assert [row["target"] for row in found] == [0.0] * 30


def test_4_next_actions_belong_to_their_own_next_state_past_terminal_ones_to_the_tail(tmp_path: Path) -> None:
    learners = [straight(n, 4, won=n % 2 == 0, game=f"game-{n % 3}") for n in range(12)]
    experts = [straight(n, 4, won=True, game=f"game-{n % 3}", policy="expert") for n in range(20, 32)]
    found = run_inverse(tmp_path, learners, experts)
    assert len(found) == 96
    for row in found:
        if not row["terminated"]:
            assert text(row["next_completion"]) == f"fresh#after {text(row['next_prompt']).rpartition('|')[2]}"


def test_5_negatives_are_relabelled_as_positives_are(tmp_path: Path) -> None:
    found = run_inverse(
        tmp_path, [straight(1, 4, won=False)], [straight(n, 4, won=True, policy="expert") for n in (2, 3)]
    )
    fresh = Counter(text(row["next_completion"]).startswith("fresh#") for row in found if not row["expert"])
    assert fresh == {True: 4}


def test_6_negatives_of_each_policy_are_its_own_and_none_is_there_twice(tmp_path: Path) -> None:
    learners = [straight(n, 4, won=False, policy=f"pi_{n % 3}") for n in range(9)]
    found = run_inverse(tmp_path, learners, [straight(n, 4, won=True, policy="expert") for n in range(20, 40)])
    negatives = [row for row in found if not row["expert"]]
    assert Counter(row["policy_id"] for row in negatives) == {"pi_0": 12, "pi_1": 12, "pi_2": 12}
    assert len({(row["policy_id"], text(row["prompt"]), text(row["completion"])) for row in negatives}) == 36


def test_7_balance_counts_transitions_not_episodes(tmp_path: Path) -> None:
    found = run_inverse(
        tmp_path,
        [straight(1, 30, won=False), straight(2, 30, won=False)],
        [straight(n, 3, won=True, policy="expert") for n in range(3, 10)],
    )
    assert Counter(row["expert"] for row in found) == {True: 21, False: 21}


@pytest.mark.parametrize(("stop", "terminal"), [("step_limit", False), ("lost", True)])
def test_8_a_loss_is_terminal_and_a_time_out_is_not_whatever_the_row_says(
    tmp_path: Path, stop: str, terminal: bool
) -> None:
    episode = replace(straight(1, 4, won=False), stop_reason=stop)
    episode.turns[3].terminated = not terminal  # as stock's step limit reports it
    found = run_inverse(tmp_path, [episode], [straight(2, 4, won=True, policy="expert")])
    ends = {(row["expert"], row["turn"]): row["terminated"] for row in found}
    assert ends == {(expert, turn): turn == 3 and (expert or terminal) for expert in (True, False) for turn in range(4)}
    assert all((row["next_prompt"] == row["next_completion"] == []) == row["terminated"] for row in found)


def test_9_no_game_and_so_no_episode_is_on_both_sides(tmp_path: Path) -> None:
    found = label(tmp_path, [play(n, games=40) for n in range(300)])
    sides = {split: {row["game_id"] for row in found if row["split"] == split} for split in ("train", "test")}
    assert not sides["train"] & sides["test"]
    assert len(sides["test"]) > 2


def test_10_equal_texts_in_two_games_are_two_states_and_counts_are_kept(tmp_path: Path) -> None:
    same = straight(1, 2, won=True)
    other = replace(straight(1, 2, won=False), game_id="game-1", episode_id="other")
    again = replace(straight(1, 2, won=True), episode_id="again")
    found = label(tmp_path, [same, other, again])
    assert sorted((row["game_id"], row["turn"], row["target"], row["count"]) for row in found) == [
        ("game-0", 0, 0.95, 2),
        ("game-0", 1, 1.0, 2),
        ("game-1", 0, 0.0, 1),
        ("game-1", 1, 0.0, 1),
    ]


def test_10_the_reason_kept_is_drawn_not_the_first(tmp_path: Path) -> None:
    kept = Counter()
    for seed in range(8):
        same = [replace(straight(1, 1, won=True), episode_id=f"e{n}") for n in range(4)]
        for n, episode in enumerate(same):
            episode.turns[0].reason = f"reason {n}"
        folder = write(tmp_path / f"in-{seed}", same)
        out = tmp_path / f"out-{seed}"
        monte_carlo.label([folder], out, seed=seed, prompt=template(tmp_path))
        kept[text(rows(out)[0]["completion"])] += 1
    assert len(kept) > 1


def test_11_a_file_that_cannot_be_read_stops_the_label(tmp_path: Path) -> None:
    folder = write(tmp_path / "in", tree(10))
    (folder / "aaa.parquet").write_bytes(b"junk")
    with pytest.raises(UserError, match=r"aaa\.parquet"):
        monte_carlo.label([folder], tmp_path / "out", prompt=template(tmp_path))


def test_11_the_order_of_folders_changes_nothing(tmp_path: Path) -> None:
    folders = [write(tmp_path / name, tree(40, policy=name)) for name in ("pi_1", "pi_2")]
    found = []
    for out, order in ((tmp_path / "out", folders), (tmp_path / "reversed", folders[::-1])):
        monte_carlo.label(order, out, prompt=template(tmp_path))
        found.append(sorted(map(repr, rows(out))))
    assert found[0] == found[1]


def test_12_shaping_takes_values_not_logits_and_subtracts_at_the_last_step_too(tmp_path: Path) -> None:
    folder = write(tmp_path / "in", [straight(1, 2, won=True)])
    options: dict[str, Any] = {"alpha": 0.5, "gamma": 1.0, "prompt": template(tmp_path)}
    shaping.label([folder], tmp_path / "out", value_fn=lambda prompts: [0.4] * len(prompts), **options)
    first, last = [row["target"] * 1.5 - 0.5 for row in rows(tmp_path / "out")]
    assert first == pytest.approx(0.5 * 1 + 0.5 * (0 + 0.4 - 0.4))
    assert last == pytest.approx(0.5 * 1 + 0.5 * (1 + 0.0 - 0.4))
    with pytest.raises(UserError, match="not as a logit"):
        shaping.label([folder], tmp_path / "out", value_fn=lambda prompts: [3.2] * len(prompts), **options)


def test_13_pairs_have_a_margin_and_a_state_is_on_one_side(tmp_path: Path) -> None:
    episodes = [play(n, games=30) for n in range(400)]
    preferences.label([write(tmp_path / "in", episodes)], tmp_path / "out", delta=0.2, prompt=template(tmp_path))
    found = rows(tmp_path / "out")
    assert min(row["margin"] for row in found) >= 0.2
    sides = [{row["state_key"] for row in found if row["split"] == split} for split in ("train", "test")]
    assert all(sides)
    assert not sides[0] & sides[1]


def test_actions_never_come_from_turns_that_a_branch_only_repeats(tmp_path: Path) -> None:
    parent = straight(1, 4, won=False)
    branch = replace(straight(1, 4, won=True), episode_id="branch", parent_id=parent.episode_id, branch_turn=2)
    branch.turns[2] = replace(branch.turns[2], action=next(a for a in ACTIONS if a != parent.turns[2].action))
    branch.turns = [replace(t, state_key=b"") for t in branch.turns]
    found = {(row["turn"], key_of(row)[1]): (row["target"], row["count"]) for row in label(tmp_path, [parent, branch])}
    a, b = parent.turns[2].action, branch.turns[2].action
    expected = {(0, a): (0.0, 1), (1, a): (0.0, 1), (2, a): (0.0, 1), (2, b): (0.95, 1)}
    assert {key: found[key] for key in expected} == expected
    value.label([tmp_path / "in"], tmp_path / "values", prompt=template(tmp_path))
    values = Counter((row["turn"], row["count"]) for row in rows(tmp_path / "values"))
    assert values == {(0, 1): 1, (1, 1): 1, (2, 1): 1, (3, 1): 2}

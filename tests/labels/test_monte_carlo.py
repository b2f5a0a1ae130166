"""`monte_carlo` against Eq. 1 in plain Python, and the settings that must not change it."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
from label_worlds import Key, counts, discounted, key_of, play, prompt_of, rows, straight, template, text, tree, write

from prm_gym.labels import monte_carlo
from prm_gym.types import Episode


def oracle(episodes: list[Episode], gamma: float) -> dict[Key, list[float]]:
    found: dict[Key, list[float]] = defaultdict(list)
    for episode in filter(counts, episodes):
        for turn in range(episode.branch_turn, episode.actions):
            key = prompt_of(episode, turn), episode.turns[turn].action
            found[key].append(discounted(episode, turn, gamma))
    return found


@pytest.mark.parametrize("gamma", [0.0, 0.5, 0.95, 1.0])
def test_targets_and_counts_are_those_of_equation_1(tmp_path: Path, gamma: float) -> None:
    episodes = tree()
    report = monte_carlo.label(
        [write(tmp_path / "in", episodes)], tmp_path / "out", gamma=gamma, prompt=template(tmp_path)
    )
    expected = oracle(episodes, gamma)
    found = {key_of(row): row for row in rows(tmp_path / "out")}
    assert len(found) == len(rows(tmp_path / "out")) == len(expected)
    for key, returns in expected.items():
        assert found[key]["count"] == len(returns)
        assert found[key]["target"] == pytest.approx(sum(returns) / len(returns), abs=1e-12)
    assert report.statistics["visits"] == sum(map(len, expected.values()))
    sizes = [len(returns) for returns in expected.values()]
    by_visits = report.statistics["rows by visits"]
    assert by_visits["1"] == sizes.count(1)
    assert by_visits["4-7"] == sum(4 <= size <= 7 for size in sizes)
    assert sum(by_visits.values()) == len(sizes)
    actions: dict[str, int] = defaultdict(int)
    for prompt, _ in expected:
        actions[prompt] += 1
    assert report.statistics["states"] == len(actions)
    assert report.statistics["states with two or more actions"] == sum(n > 1 for n in actions.values()) > 10


def test_the_report_counts_rows_by_target_and_by_visits(tmp_path: Path) -> None:
    """By hand: a win after 4 steps, and a defeat of 2 steps that three episodes share."""
    lost = [replace(straight(2, 2, won=False, game="game-1"), episode_id=f"lost {n}") for n in range(3)]
    folder = write(tmp_path / "in", [straight(1, 4, won=True), *lost])
    facts = monte_carlo.label([folder], tmp_path / "out", gamma=0.75, prompt=template(tmp_path)).statistics
    assert facts == {
        "targets": {"0.0-0.1": 2, "0.4-0.5": 1, "0.5-0.6": 1, "0.7-0.8": 1, "0.9-1.0": 1},
        "mean target": pytest.approx((0.421875 + 0.5625 + 0.75 + 1) / 6),
        "visits": 10,
        "rows by visits": {"1": 4, "2-3": 2},
        "states": 6,
        "states with two or more actions": 0,
    }


def test_several_folders_are_one_sample(tmp_path: Path) -> None:
    first, second = tree(policy="pi_0"), tree(policy="pi_1")
    folders = [write(tmp_path / "a", first), write(tmp_path / "b", second)]
    monte_carlo.label(folders, tmp_path / "out", prompt=template(tmp_path))
    expected = oracle([*first, *second], 0.95)
    found = {key_of(row): row["target"] for row in rows(tmp_path / "out")}
    assert found == pytest.approx({key: sum(g) / len(g) for key, g in expected.items()})


def test_the_reason_kept_is_one_of_those_sampled_and_its_row_says_whose(tmp_path: Path) -> None:
    episodes = [*tree(policy="pi_1"), *tree(policy="pi_2")]
    monte_carlo.label([write(tmp_path / "in", episodes)], tmp_path / "out", prompt=template(tmp_path))
    sampled = {
        (*oracle_key, episode.turns[turn].reason, episode.policy_id, episode.iteration, turn)
        for episode in filter(counts, episodes)
        for turn in range(episode.branch_turn, episode.actions)
        for oracle_key in [(prompt_of(episode, turn), episode.turns[turn].action)]
    }
    for row in rows(tmp_path / "out"):
        reason = text(row["completion"]).partition("#")[0]
        assert (*key_of(row), reason, row["policy_id"], row["iteration"], row["turn"]) in sampled


def test_content_depends_on_the_episodes_and_the_seed_alone(tmp_path: Path) -> None:
    episodes = tree()
    shuffled = random.Random(0).sample(episodes, len(episodes))
    halves = [write(tmp_path / "c", shuffled[:100]), write(tmp_path / "b", shuffled[100:])]
    options = {"prompt": template(tmp_path)}
    monte_carlo.label([write(tmp_path / "a", episodes)], tmp_path / "out", **options)
    monte_carlo.label(halves, tmp_path / "halves", **options)
    monte_carlo.label([tmp_path / "a"], tmp_path / "again", **options)
    monte_carlo.label([tmp_path / "a"], tmp_path / "other", **options, seed=1)

    def content(name: str) -> list[str]:
        return sorted(repr(row) for row in rows(tmp_path / name))

    assert rows(tmp_path / "out") == rows(tmp_path / "again")
    assert content("out") == content("halves")
    assert content("out") != content("other")


def test_filters_drop_rows_and_never_move_a_target(tmp_path: Path) -> None:
    episodes = tree()
    folder = write(tmp_path / "in", episodes)
    expected = oracle(episodes, 0.95)
    monte_carlo.label([folder], tmp_path / "valid", prompt=template(tmp_path), valid_only=True)
    monte_carlo.label([folder], tmp_path / "often", prompt=template(tmp_path), min_visits=3)
    monte_carlo.label([folder], tmp_path / "typed", prompt=template(tmp_path), task_types=["type-1", "type-2"])
    for name, keeps in {
        "valid": lambda key, g: key[1] != "put",
        "often": lambda key, g: len(g) >= 3,
        "typed": lambda key, g: key[0].startswith(("task of game-1", "task of game-2")),
    }.items():
        found = {key_of(row): row["target"] for row in rows(tmp_path / name)}
        assert found == pytest.approx({k: sum(g) / len(g) for k, g in expected.items() if keeps(k, g)})


def test_a_weight_is_the_share_of_a_folders_episodes(tmp_path: Path) -> None:
    folders = [write(tmp_path / f"pi_{i}", tree(300, policy=f"pi_{i}", branches=0)) for i in range(2)]
    report = monte_carlo.label(folders, tmp_path / "out", prompt=template(tmp_path), weights=[1.0, 0.25])
    assert 300 * 0.25 * 0.7 < 300 - report.skipped["thinned by weight"] < 300 * 0.25 * 1.3
    assert {row["policy_id"] for row in rows(tmp_path / "out")} == {"pi_0", "pi_1"}


def test_a_response_without_an_action_is_kept_as_it_was(tmp_path: Path) -> None:
    episode = play(0)
    episode.turns[0].action, episode.turns[0].action_valid, episode.turns[0].response = "", False, "hm, let me see"
    monte_carlo.label([write(tmp_path / "in", [episode])], tmp_path / "out", prompt=template(tmp_path))
    assert text(rows(tmp_path / "out")[0]["completion"]) == "hm, let me see"

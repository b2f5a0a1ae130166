"""`value` and `shaping` against V_mu and Eq. 13 in plain Python."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from label_worlds import Key, counts, discounted, key_of, prompt_of, rows, straight, template, text, tree, write

from prm_gym.errors import UserError
from prm_gym.labels import monte_carlo, shaping, value
from prm_gym.types import Episode, Message


def mean(numbers: list[float]) -> float:
    return sum(numbers) / len(numbers)


def state_values(episodes: list[Episode], gamma: float) -> dict[str, list[float]]:
    found: dict[str, list[float]] = defaultdict(list)
    for episode in filter(counts, episodes):
        first = episode.branch_turn + 1 if episode.parent_id else 0
        for turn in range(first, episode.actions):
            found[prompt_of(episode, turn)].append(discounted(episode, turn, gamma))
    return found


def shaped(episodes: list[Episode], values: dict[str, float], gamma: float, alpha: float) -> dict[Key, float]:
    """Eq. 13 for every (s, a) whose values are known, mapped to [0, 1]."""
    q: dict[Key, list[float]] = defaultdict(list)
    advantages: dict[Key, list[float | None]] = defaultdict(list)
    for episode in filter(counts, episodes):
        for turn in range(episode.branch_turn, episode.actions):
            key = prompt_of(episode, turn), episode.turns[turn].action
            q[key].append(discounted(episode, turn, gamma))
            last = turn == episode.actions - 1
            after = 0.0 if last and episode.won else values.get(prompt_of(episode, turn + 1), 0.0 if last else None)
            here = values.get(prompt_of(episode, turn))
            known = after is not None and here is not None
            advantages[key].append(episode.turns[turn].reward + gamma * after - here if known else None)  # type: ignore[operator]
    return {
        key: ((1 - alpha) * mean(q[key]) + alpha * mean(advantages[key]) + alpha) / (1 + alpha)  # type: ignore[arg-type]
        for key in q
        if None not in advantages[key]
    }


@pytest.mark.parametrize("gamma", [0.5, 0.95, 1.0])
def test_state_values_are_mean_returns_of_what_the_policy_chose(tmp_path: Path, gamma: float) -> None:
    episodes = tree()
    value.label([write(tmp_path / "in", episodes)], tmp_path / "out", gamma=gamma, prompt=template(tmp_path))
    found = {text(row["prompt"]): (row["count"], row["target"]) for row in rows(tmp_path / "out")}
    expected = state_values(episodes, gamma)
    assert {state: count for state, (count, _) in found.items()} == {s: len(g) for s, g in expected.items()}
    assert {state: v for state, (_, v) in found.items()} == pytest.approx({s: mean(g) for s, g in expected.items()})


@pytest.mark.parametrize(("gamma", "alpha"), [(0.5, 0.5), (0.95, 0.5), (1.0, 1.0)])
def test_shaped_targets_with_a_value_dataset(tmp_path: Path, gamma: float, alpha: float) -> None:
    ours, theirs = tree(policy="pi_0"), tree(300, policy="mu_7")
    options = {"gamma": gamma, "prompt": template(tmp_path)}
    value.label([write(tmp_path / "mu", theirs)], tmp_path / "values", **options)  # type: ignore[arg-type]
    report = shaping.label(
        [write(tmp_path / "pi", ours)],
        tmp_path / "out",
        values=tmp_path / "values",
        alpha=alpha,
        **options,  # type: ignore[arg-type]
    )
    values = {state: mean(found) for state, found in state_values(theirs, gamma).items()}
    expected = shaped(ours, values, gamma, alpha)
    found = {key_of(row): row["target"] for row in rows(tmp_path / "out")}
    assert found == pytest.approx(expected)
    everything = monte_carlo.label([tmp_path / "pi"], tmp_path / "all", **options)  # type: ignore[arg-type]
    assert report.skipped["rows of unknown value"] == sum(everything.rows.values()) - len(expected) > 0


def test_shaped_targets_with_a_value_function(tmp_path: Path) -> None:
    gamma = 0.95

    def value_of(prompt: str) -> float:
        return (len(prompt) * 37 % 101) / 101

    def value_fn(prompts: list[list[Message]]) -> list[float]:
        return [value_of(text(prompt)) for prompt in prompts]  # type: ignore[arg-type]

    episodes = tree()
    folder = write(tmp_path / "in", episodes)
    shaping.label([folder], tmp_path / "out", value_fn=value_fn, gamma=gamma, prompt=template(tmp_path))
    values = {prompt_of(e, t): value_of(prompt_of(e, t)) for e in episodes for t in range(len(e.turns))}
    found = {key_of(row): row["target"] for row in rows(tmp_path / "out")}
    assert found == pytest.approx(shaped(episodes, values, gamma, 0.5))


@pytest.mark.parametrize(("stop", "last"), [("won", 0.65), ("lost", 0.4), ("step_limit", 0.5)])
def test_no_value_is_added_after_a_terminal_state(tmp_path: Path, stop: str, last: float) -> None:
    """With V = 0.4 the last advantage is 1 + 0 - 0.4 after a win, 0 + 0 - 0.4 after a loss and 0 + 0.4 - 0.4 after a
    time-out; each is averaged with that of a time-out in the same state.
    """
    ended = replace(straight(1, 3, won=stop == "won"), episode_id="ended", stop_reason=stop)
    folder = write(tmp_path / "in", [ended, straight(1, 3, won=False)])
    options: dict[str, Any] = {"alpha": 1.0, "gamma": 1.0, "prompt": template(tmp_path)}
    shaping.label([folder], tmp_path / "out", value_fn=lambda prompts: [0.4] * len(prompts), **options)
    assert [row["target"] for row in rows(tmp_path / "out")] == pytest.approx([0.5, 0.5, last])  # (A + 1) / 2


def test_without_weight_the_shaped_targets_are_those_of_monte_carlo(tmp_path: Path) -> None:
    folder, options = write(tmp_path / "in", tree()), {"prompt": template(tmp_path)}
    monte_carlo.label([folder], tmp_path / "mc", **options)  # type: ignore[arg-type]
    shaping.label([folder], tmp_path / "out", value_fn=lambda p: [0.3] * len(p), alpha=0.0, **options)  # type: ignore[arg-type]
    targets = [{key_of(row): row["target"] for row in rows(tmp_path / name)} for name in ("mc", "out")]
    assert targets[0] == pytest.approx(targets[1])


def test_values_that_are_no_values_are_refused(tmp_path: Path) -> None:
    folder, plain = write(tmp_path / "in", tree()), template(tmp_path)
    monte_carlo.label([folder], tmp_path / "mc", prompt=plain)
    value.label([folder], tmp_path / "v", prompt=plain, gamma=0.5)
    (tmp_path / "empty").mkdir()
    for options, problem in (
        ({}, "neither is given"),
        ({"values": tmp_path / "empty", "value_fn": lambda p: []}, "both are given"),
        ({"values": tmp_path / "empty"}, "no value dataset"),
        ({"values": tmp_path / "mc"}, "mc: is a dataset of monte_carlo, not of value; name a folder"),
        ({"values": str(tmp_path / "v")}, "v: gamma: V_mu with gamma 0.5, not 0.95; give both the same"),
        ({"value_fn": lambda p: [-2.5] * len(p)}, "outside"),
        ({"value_fn": lambda p: [float("nan")] * len(p)}, "outside"),
        ({"value_fn": lambda p: [0.5]}, "1 values for"),
        ({"value_fn": lambda p: [0.5] * len(p), "alpha": 1.5}, "alpha: got 1.5; must be at least 0 and at most 1"),
    ):
        with pytest.raises(UserError, match=problem):
            shaping.label([folder], tmp_path / "out", prompt=plain, **options)  # type: ignore[arg-type]
        assert not (tmp_path / "out").exists()

"""The expert: it wins from text alone, is deterministic, and gives its reasons."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from pathlib import Path

import pytest

from prm_gym.envs.engine import load
from prm_gym.envs.engine_interface import Play
from prm_gym.envs.households import generate
from prm_gym.errors import UserError
from prm_gym.policies.expert import RANDOM_REASON, ExpertPolicy
from prm_gym.prompts import parse
from prm_gym.types import Response, State

pytest.importorskip("alfworld")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four small games of each task type."""
    return written(tmp_path_factory.mktemp("small"), "small", 24)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """One full game of each task type."""
    return written(tmp_path_factory.mktemp("full"), "full", 6)


def written(folder: Path, preset: str, count: int) -> list[Path]:
    generate(folder, preset=preset, splits={"valid_unseen": count}, seed=11, progress=False)
    return sorted(folder.rglob("game.tw-pddl"))


def state_of(path: Path, play: Play, observations: list[str], actions: list[str]) -> State:
    return State(path.parts[-2], play.game.task, tuple(observations), tuple(actions), tuple(play.admissible_commands))


def episode(
    path: Path, policy: ExpertPolicy, *, limit: int = 50, seed: int = 0, opening: list[str] | None = None
) -> tuple[bool, list[tuple[State, Response]]]:
    """Play a game, after the commands of `opening`; whether it was won, and what the policy said where."""
    play = load(path).start()
    observations, actions = [play.observation], list(opening or [])
    observations += [play.step(command) for command in actions]
    said: list[tuple[State, Response]] = []
    while not play.won and len(actions) < limit:
        state = state_of(path, play, observations, actions)
        response = asyncio.run(policy.act(state, seed=seed))[0]
        said.append((state, response))
        observations.append(play.step(response.action))
        actions.append(response.action)
    return play.won, said


def test_wins_small_games_of_every_type_in_few_actions(small: list[Path]) -> None:
    results = [episode(path, ExpertPolicy(), limit=30) for path in small]
    assert all(won for won, _ in results)
    assert 6 <= sum(len(said) for _, said in results) / len(results) <= 12


def test_wins_full_games_of_every_type(full: list[Path]) -> None:
    assert all(episode(path, ExpertPolicy())[0] for path in full)


def test_actions_are_admissible_and_never_wander(small: list[Path]) -> None:
    for path in small:
        for state, response in episode(path, ExpertPolicy())[1]:
            assert response.action in state.admissible_commands
            assert response.action not in ("look", "help", "inventory")


def test_no_object_is_taken_twice(small: list[Path]) -> None:
    """Above all not the first of two that were to be placed."""
    for path in small:
        taken = [r.action.split(" from ")[0] for _, r in episode(path, ExpertPolicy())[1] if r.action[:4] == "take"]
        assert len(set(taken)) == len(taken)


def test_reasons_are_one_sentence_and_speak_of_the_action(small: list[Path]) -> None:
    for path in small:
        for _, response in episode(path, ExpertPolicy())[1]:
            assert re.fullmatch(r"I?[^.\n]+\.", response.reason)
            place = re.search(r"(?:go to|open) (.+)", response.action)
            if place:
                assert place[1] in response.reason
            parsed = parse(response.text)
            assert (parsed.reason, parsed.action) == (response.reason, response.action)


def test_is_a_function_of_state_and_seed(small: list[Path]) -> None:
    first = episode(small[0], ExpertPolicy(0.5), seed=4)
    assert episode(small[0], ExpertPolicy(0.5), seed=4) == first
    assert episode(small[0], ExpertPolicy(0.5), seed=5)[1] != first[1]
    state, response = first[1][-1]
    assert asyncio.run(ExpertPolicy(0.5).act(state, seed=4)) == [response]  # asked out of order, by another instance


def test_random_actions_are_the_share_asked_for(small: list[Path]) -> None:
    said = [pair for seed in range(8) for path in small for pair in episode(path, ExpertPolicy(0.3), seed=seed)[1]]
    drawn = [response.reason == RANDOM_REASON for _, response in said]
    assert abs(sum(drawn) / len(drawn) - 0.3) < 4 * (0.3 * 0.7 / len(drawn)) ** 0.5


def test_samples_at_one_state_differ_only_by_random_actions(small: list[Path]) -> None:
    state = episode(small[0], ExpertPolicy())[1][0][0]
    assert len({r.action for r in asyncio.run(ExpertPolicy().act(state, n=16))}) == 1
    assert len({r.action for r in asyncio.run(ExpertPolicy(1.0).act(state, n=16))}) > 3


def test_more_random_actions_make_worse_demonstrations(small: list[Path]) -> None:
    won = [
        sum(episode(path, ExpertPolicy(share), limit=15, seed=seed)[0] for path in small for seed in range(4))
        for share in (0.0, 0.4, 0.8)
    ]
    assert won[0] > won[1] > won[2]


def test_recovers_from_forty_random_actions(small: list[Path]) -> None:
    """Whatever a random player left behind (things displaced, doors shut, hands full), the expert finishes."""
    for path in small:
        _, wandering = episode(path, ExpertPolicy(1.0), limit=40)
        opening = [response.action for _, response in wandering]
        assert episode(path, ExpertPolicy(), opening=opening, limit=40 + 30)[0]


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_share_outside_its_range_is_refused(share: float) -> None:
    with pytest.raises(UserError, match="random_actions"):
        ExpertPolicy(share)


@pytest.mark.slow
def test_wins_95_percent_of_full_games_of_each_type(tmp_path: Path) -> None:
    won: Counter[str] = Counter()
    for path in written(tmp_path, "full", 120):
        won[path.parts[-3].split("-")[0]] += episode(path, ExpertPolicy())[0]
    assert len(won) == 6
    assert min(won.values()) >= 19, won


def test_mistakes_are_commands_that_are_not_admissible() -> None:
    expert = ExpertPolicy(mistakes=1.0)
    listed = "Looking quickly around you, you see a desk 1, a drawer 1, and a shelf 1."
    first = f"{listed}\n\nYour task is to: put a mug in desk."
    observations = (first, "You arrive at shelf 1. On the shelf 1, you see a mug 1.")
    commands = ("go to desk 1", "go to drawer 1", "take mug 1 from shelf 1")
    state = State("g", "put a mug in desk", observations, ("go to shelf 1",), commands)
    for seed in range(30):
        action = expert.respond(state, seed=seed).action
        assert action not in commands
        assert action == "look" or any(name in action for name in ("desk 1", "drawer 1", "shelf 1"))


def test_half_of_the_mistakes_are_about_what_the_task_asks_for() -> None:
    first = "Looking quickly around you, you see a desk 1, and a shelf 1.\n\nYour task is to: put a mug in desk."
    observations = (first, "You arrive at shelf 1. On the shelf 1, you see a pen 1.")
    commands = ("go to desk 1", "examine shelf 1", "take pen 1 from shelf 1")
    state = State("g", "put a mug in desk", observations, ("go to shelf 1",), commands)
    actions = [ExpertPolicy(mistakes=1.0).respond(state, seed=seed).action for seed in range(400)]
    here = [action for action in actions if action.startswith("take mug ") and action.endswith(" from shelf 1")]
    assert 0.05 < len(here) / len(actions) < 0.4


def test_dawdles_before_the_share_of_departures_asked_for_and_once() -> None:
    first = "Looking quickly around you, you see a desk 1, and a shelf 1.\n\nYour task is to: put a mug in desk."
    observations = (first, "You arrive at shelf 1. On the shelf 1, you see nothing.")
    commands = ("go to desk 1", "examine shelf 1", "look")
    expert = ExpertPolicy(dawdling=0.7)
    before = State("g", "put a mug in desk", observations, ("go to shelf 1",), commands)
    after = State(
        "g", "put a mug in desk", (*observations, "You are facing the shelf 1."), ("go to shelf 1", "look"), commands
    )
    actions = [expert.respond(before, seed=seed).action for seed in range(1000)]
    assert set(actions) == {"look", "go to desk 1"}
    assert 0.65 < actions.count("look") / 1000 < 0.75
    assert {expert.respond(after, seed=seed).action for seed in range(100)} == {"go to desk 1"}


def test_searches_as_listed() -> None:
    first = (
        "Looking quickly around you, you see a shelf 2, a shelf 1, and a desk 1.\n\nYour task is to: put a mug in desk."
    )
    state = State("g", "put a mug in desk", (first,), (), ("go to desk 1", "go to shelf 1", "go to shelf 2"))
    assert ExpertPolicy(search="as_listed").respond(state).action == "go to shelf 2"
    assert ExpertPolicy(search="rare_first").respond(state).action == "go to desk 1"


def test_searches_anywhere_that_nobody_has_looked() -> None:
    first = (
        "Looking quickly around you, you see a shelf 2, a shelf 1, and a desk 1.\n\nYour task is to: put a mug in desk."
    )
    observations = (first, "You arrive at shelf 2. On the shelf 2, you see nothing.")
    commands = ("examine shelf 2", "go to desk 1", "go to shelf 1")
    state = State("g", "put a mug in desk", observations, ("go to shelf 2",), commands)
    expert = ExpertPolicy(search="anywhere")
    actions = [expert.respond(state, seed=seed).action for seed in range(200)]
    assert set(actions) == {"go to desk 1", "go to shelf 1"}
    assert 70 < actions.count("go to desk 1") < 130


def test_more_random_actions_and_mistakes_than_actions_are_refused() -> None:
    with pytest.raises(UserError, match=r"mistakes: 0\.7 with random_actions 0\.7"):
        ExpertPolicy(0.7, mistakes=0.7)


def test_an_unknown_order_is_named() -> None:
    with pytest.raises(UserError, match="search: no order 'random'"):
        ExpertPolicy(search="random")

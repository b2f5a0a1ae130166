"""Rollouts in environments other than ALFWorld: rewards, ends, unknown commands, snapshots, chance."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from rollout_world import Walker

from prm_gym.envs.contract import CheckedEnvironment, Task
from prm_gym.envs.named import SEEDS, NamedEnvironment, named_by
from prm_gym.errors import UserError
from prm_gym.policies.random import RandomPolicy
from prm_gym.provenance import read
from prm_gym.rollout import rollout, rollout_branches
from prm_gym.store import read_episodes
from prm_gym.types import Episode, PromptTooLong, State

TASKS = [Task(f"coins/{seed}", "train", "coins", seed=seed) for seed in range(6)]


class Coins:
    """`flip` pays 0.25 on heads, four flips at most; `leave` ends with nothing more. Chance is that of the seed."""

    calls: ClassVar[Counter[str]] = Counter()

    def __init__(self, pay: float = 0.25, tell: bool = True, won: bool | None = None) -> None:
        self.pay, self.tell, self.won = pay, tell, won

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        self.calls["reset"] += 1
        self.rng, self.flips, self.seed = random.Random(seed), 0, seed
        return "a coin", self._info()

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        self.calls["step"] += 1
        if action == "open door":
            return "you left", 0.0, True, False, self._info()
        self.flips += 1
        heads = self.rng.random() < 0.5
        return "heads" if heads else "tails", self.pay * heads, self.flips == 4, False, self._info()

    def _info(self) -> dict[str, Any]:
        info: dict[str, Any] = {"admissible_commands": ["open door", "go left"]} if self.tell else {}
        return info if self.won is None else {**info, "won": self.won}

    def close(self) -> None:
        pass


class Restorable(Coins):
    def snapshot(self) -> Any:
        self.calls["snapshot"] += 1
        return self.rng.getstate(), self.flips, self.seed

    def restore(self, snapshot: Any) -> None:
        self.calls["restore"] += 1
        state, self.flips, self.seed = snapshot
        self.rng = random.Random()
        self.rng.setstate(state)


class Chancy(Coins):
    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        return super().reset(seed=None)


def collected(out: Path, make_env: Any, policy: Any = None, **options: Any) -> list[Episode]:
    policy = policy or Walker(commands=["go left", "go left", "open door"])
    rollout(TASKS, policy, out, make_env=make_env, progress=False, rollouts_per_game=4, **options)
    return list(read_episodes(out))


def test_rewards_within_one_in_sum_are_stored_as_they_are(tmp_path: Path) -> None:
    for episode in collected(tmp_path, Coins):
        for turn, after in zip(episode.turns, episode.turns[1:], strict=False):
            assert turn.reward == (0.25 if after.observation == "heads" else 0.0)


def test_an_episode_is_won_lost_or_cut_off_by_the_stated_rule(tmp_path: Path) -> None:
    ends = Counter(
        (episode.stop_reason, episode.total_reward == 1, episode.turns[-2].terminated)
        for episode in collected(tmp_path / "a", Coins, max_episode_steps=3)
    )
    assert set(ends) == {("lost", False, True), ("step_limit", False, False)}
    full = collected(tmp_path / "b", partial(Coins, pay=0.25), Walker(commands=["go left"]))
    assert {episode.stop_reason for episode in full if episode.total_reward < 1} == {"lost"}
    assert {e.stop_reason for e in collected(tmp_path / "c", partial(Coins, won=True))} == {"won"}


class Heads(Coins):
    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        self.flips += 1
        return "heads", 1 / 3, self.flips == 3, False, {}


def test_a_full_return_wins_where_info_does_not_tell_and_thirds_make_a_whole(tmp_path: Path) -> None:
    episodes = collected(tmp_path, partial(Heads, tell=False), Walker(commands=["go left"]))
    assert {episode.stop_reason for episode in episodes} == {"won"}


def test_unknown_commands_are_null_in_the_store_and_empty_ones_are_not(tmp_path: Path) -> None:
    for episode in collected(tmp_path, partial(Coins, tell=False)):
        assert all(turn.admissible_commands is None for turn in episode.turns)
        assert all(turn.action_valid is None for turn in episode.turns[:-1])
        assert episode.state_at(0).admissible_commands is None
    known = collected(tmp_path / "known", Coins, Walker(commands=["go left", "Sing"]))
    assert {turn.action_valid for episode in known for turn in episode.turns[:-1]} == {True, False}


def test_the_random_policy_needs_to_know_the_commands() -> None:
    state = State("g", "t", ("o",), (), None)
    with pytest.raises(UserError, match="does not tell its admissible commands"):
        asyncio.run(RandomPolicy().act(state))


@pytest.mark.parametrize(("low", "high"), [(-3.0, 1.0), (-1.0, 1.0), (-1.5, 2.5)])
def test_the_last_step_pays_the_rescaled_return(tmp_path: Path, low: float, high: float) -> None:
    def make() -> CheckedEnvironment:
        return CheckedEnvironment(Walks(), "walks", [low, high])

    for episode in collected(tmp_path, make, Walker(commands=["go left", "go right", "open door"])):
        total = float(episode.turns[-1].observation.removeprefix("at "))
        *before, last = [turn.reward for turn in episode.turns[:-1]]
        assert not any(before)
        assert last == pytest.approx((total - low) / (high - low), abs=1e-6)
        assert (episode.stop_reason == "won") == (total == high)


def test_an_episode_cut_short_by_its_prompt_is_not_paid_for_the_costs_it_avoided(tmp_path: Path) -> None:
    """Each step costs 1, of at most 3: played to the end an episode returns 0."""

    async def fits(state: State) -> None:
        if state.turn == 1:
            raise PromptTooLong("no room")

    def make() -> CheckedEnvironment:
        return CheckedEnvironment(Costly(), "costly", [-3.0, 0.0])

    for policy, stop in ((Walker(fits), "prompt_too_long"), (Walker(), "step_limit")):
        found = collected(tmp_path / stop, make, policy, max_episode_steps=3)
        assert {(episode.stop_reason, episode.total_reward) for episode in found} == {(stop, 0.0)}


class Costly(Coins):
    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        return "on", -1.0, False, False, self._info()


class Walks(Coins):
    """Right pays 1, left costs 1, within [-1, 1]; three steps."""

    def reset(self, **options: Any) -> tuple[str, dict[str, Any]]:
        self.place = 0
        return super().reset(**options)

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        self.flips += 1
        wanted = {"go right": 1, "go left": -1}.get(action, 0)
        moved = max(-1, min(1, self.place + wanted)) - self.place
        self.place += moved
        return f"at {self.place}", np.float32(moved), self.flips == 3, False, self._info()


def test_a_return_outside_of_the_stated_range_is_an_error_of_its_episode(tmp_path: Path) -> None:
    def make() -> CheckedEnvironment:
        return CheckedEnvironment(Walks(), "walks", [0.0, 1.0])

    summary = rollout(TASKS, Walker(commands=["go left"]), tmp_path, make_env=make, max_failed_share=1, progress=False)
    assert summary.failures == len(TASKS)
    assert (
        r"walks: an episode's return of -1 is outside of reward_range [0, 1]"
        in (tmp_path / "failures.jsonl").read_text()
    )


# Branches


def branched(tmp_path: Path, make_env: Any, name: str = "branches", **options: Any) -> list[Episode]:
    policy = Walker(commands=["go left", "go left", "open door"])
    if not (tmp_path / "parents").exists():
        rollout(TASKS, policy, tmp_path / "parents", make_env=make_env, progress=False, rollouts_per_game=4)
    options = {"continuations": 3, "progress": False, "make_env": make_env, **options}
    rollout_branches(tmp_path / "parents", TASKS, policy, tmp_path / name, **options)
    return list(read_episodes(tmp_path / name))


def test_branches_restore_snapshots_and_are_those_that_replays_give(tmp_path: Path) -> None:
    Coins.calls.clear()
    restored = branched(tmp_path, Restorable)
    states = {(episode.parent_id, episode.branch_turn) for episode in restored if episode.branch_turn}
    assert Coins.calls["snapshot"] == len(states) > 5
    assert Coins.calls["restore"] == sum(episode.branch_turn > 0 for episode in restored) - len(states)
    replayed = branched(tmp_path, Coins, "again")
    assert {e.episode_id: e for e in replayed} == {e.episode_id: e for e in restored}


def test_rescaled_rewards_count_the_restored_turns(tmp_path: Path) -> None:
    class Restored(Walks):
        def snapshot(self) -> Any:
            return self.place, self.flips

        def restore(self, snapshot: Any) -> None:
            self.place, self.flips = snapshot

    def make(kind: type[Coins]) -> CheckedEnvironment:
        return CheckedEnvironment(kind(), "walks", [-1.0, 1.0])

    restored = branched(tmp_path, partial(make, Restored), samples=4)
    replayed = branched(tmp_path, partial(make, Walks), "again", samples=4)
    assert {e.episode_id: e for e in replayed} == {e.episode_id: e for e in restored}
    assert len({episode.total_reward for episode in restored}) > 1


def test_an_environment_random_between_equal_resets_is_played_but_not_branched(tmp_path: Path) -> None:
    assert len(collected(tmp_path / "played", Chancy)) == 24
    with pytest.raises(UserError, match=r"Chancy: is random between equal resets .*cannot be branched; .*seed"):
        branched(tmp_path, Chancy)


def test_chance_that_depends_on_the_seed_can_be_branched(tmp_path: Path) -> None:
    assert branched(tmp_path, Coins)


# Names and tasks


def test_seeds_are_the_tasks_where_the_environment_names_none() -> None:
    env = NamedEnvironment(factory=f"{__name__}:Coins")
    splits = {split: env.tasks(split) for split in ("train", "valid_seen", "valid_unseen")}
    seeds = [task.seed for tasks in splits.values() for task in tasks]
    assert seeds == list(range(3 * SEEDS))
    assert len({task.game_id for tasks in splits.values() for task in tasks}) == len(seeds)
    assert {task.split for task in splits["valid_seen"]} == {"valid_seen"}
    with pytest.raises(UserError, match="has no split 'test'"):
        env.tasks("test")


class Levels(Coins):
    def tasks(self, split: str) -> list[Task]:
        return [Task(f"{split}-{n}", split, f"kind {n % 2}", options={"level": n}) for n in range(4)]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        return f"level {(options or {})['level']}", super().reset(seed=seed)[1]


def test_tasks_of_the_environment_set_its_options_and_types(tmp_path: Path) -> None:
    env = NamedEnvironment(factory=f"{__name__}:Levels")
    rollout(env.tasks("train"), Walker(), tmp_path, make_env=env, progress=False)
    for episode in read_episodes(tmp_path):
        number = int(episode.game_id.removeprefix("train-"))
        assert episode.turns[0].observation == f"level {number}"
        assert (episode.task_type, episode.split) == (f"kind {number % 2}", "train")


def test_other_settings_of_an_environment_are_refused(tmp_path: Path) -> None:
    env = NamedEnvironment(factory=f"{__name__}:Coins", kwargs={"pay": 0.25})
    tasks = env.tasks("train")[:2]
    rollout(tasks, Walker(), tmp_path, make_env=env, progress=False)
    record = read(tmp_path)
    assert record is not None
    assert record["settings"]["env"]["factory"] == f"{__name__}:Coins"
    with pytest.raises(UserError, match=r"env\.kwargs\.pay: begun with 0.25, this command says 0.2"):
        rollout(tasks, Walker(), tmp_path, make_env=replace(env, kwargs={"pay": 0.2}), progress=False)
    with pytest.raises(UserError, match="games: begun with"):
        rollout([replace(tasks[0], seed=99), tasks[1]], Walker(), tmp_path, make_env=env, progress=False)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("FrozenLake-v1", "id"),
        ("package:Name-v3", "id"),
        ("prm_gym/ALFWorld-v0", "id"),
        ("package.module:factory", "factory"),
        ("module:Class.make", "factory"),
    ],
)
def test_a_name_is_a_gymnasium_id_or_a_factory(name: str, kind: str) -> None:
    assert getattr(named_by(name), kind) == name

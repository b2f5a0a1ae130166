"""ScienceWorld against its own gold paths and scores."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from prm_gym.envs.contract import CheckedEnvironment
from prm_gym.envs.named import NamedEnvironment
from prm_gym.errors import UserError
from prm_gym.rollout import rollout
from prm_gym.store import read_episodes

pytest.importorskip("scienceworld", reason="needs the extra 'scienceworld'")
if shutil.which("java") is None:
    pytest.skip("needs a Java runtime (apt install default-jre-headless)", allow_module_level=True)

ENV = NamedEnvironment(
    factory="prm_gym.envs.scienceworld:ScienceWorld",
    kwargs={"task_names": ["find-plant"], "simplifications": "easy"},
)


@pytest.fixture(scope="module")
def playing() -> Iterator[CheckedEnvironment]:
    env = ENV()
    yield env
    env.close()


def test_splits_are_scienceworlds_own(playing: CheckedEnvironment) -> None:
    splits = {split: {task.game_id for task in ENV.tasks(split)} for split in ("train", "valid_seen", "valid_unseen")}
    assert [len(ids) for ids in splits.values()] == [150, 75, 75]
    variations = {game_id.rpartition("/")[2] for ids in splits.values() for game_id in ids}
    assert variations == {str(number) for number in range(300)}


def test_the_gold_path_wins_and_pays_one_in_sum(playing: CheckedEnvironment) -> None:
    shown, total, terminated = playing.reset(ENV.tasks("train")[3]), 0.0, False
    assert shown.info["task"].startswith("Your task is to find a(n) plant")
    assert shown.admissible_commands is None
    for _ in range(40):
        shown, reward, terminated, _ = playing.step(shown.info["expert_action"])
        total += reward
        if terminated:
            break
    assert (terminated, shown.info["won"], round(total, 9)) == (True, True, 1.0)


def test_a_wrong_focus_ends_the_episode_lost_and_takes_nothing_back(playing: CheckedEnvironment) -> None:
    playing.reset(ENV.tasks("train")[3])
    playing.step("open door to kitchen")
    shown, reward, terminated, _ = playing.step("focus on agent")
    assert (reward, terminated, shown.info["won"]) == (0.0, True, False)


def test_an_unknown_task_is_told() -> None:
    with pytest.raises(UserError, match="no task 'fly'; say one of boil"):
        NamedEnvironment(factory=ENV.factory, kwargs={"task_names": ["fly"]}).make()


class Gold:
    """Follows the gold path."""

    policy_id = "gold"

    async def settings(self) -> dict[str, object]:
        return {"kind": "gold"}

    async def act(self, state, *, n=1, seed=0):
        from prm_gym.types import Response

        return [Response(state.expert_action, "", state.expert_action)] * n

    async def close(self) -> None:
        pass


def test_rewards_on_the_way_are_stored(tmp_path: Path) -> None:
    rollout(ENV.tasks("valid_unseen")[:1], Gold(), tmp_path, make_env=ENV, max_episode_steps=40, progress=False)
    [episode] = read_episodes(tmp_path)
    assert episode.won
    assert sum(turn.reward > 0 for turn in episode.turns[:-1]) > 1
    assert episode.total_reward == pytest.approx(1, abs=1e-6)
    assert all(turn.admissible_commands is None for turn in episode.turns)

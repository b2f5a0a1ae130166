"""The real parts together: generated households on the exact engine, expert and random policy, the store."""

from __future__ import annotations

import pytest

pytest.importorskip("alfworld")

from rollout_world import content

from prm_gym.envs.alfworld import ALFWorldEnv
from prm_gym.envs.contract import Task
from prm_gym.envs.games import find_games
from prm_gym.envs.households import generate
from prm_gym.envs.named import NamedEnvironment
from prm_gym.policies.expert import ExpertPolicy
from prm_gym.policies.random import RandomPolicy
from prm_gym.rollout import rollout, rollout_branches


@pytest.fixture(scope="module")
def games(tmp_path_factory):
    folder = tmp_path_factory.mktemp("games")
    generate(folder, preset="small", splits={"train": 3}, seed=1, progress=False)
    return find_games(folder, "train")


def replayed(episode, games):
    """The episode's texts as the environment gives them when its actions are played alone."""
    [game] = [game for game in games if game.game_id == episode.game_id]
    env = ALFWorldEnv(games, max_episode_steps=30)
    observation, info = env.reset(options={"game_file": str(game.path)})
    yield observation, info["admissible_commands"]
    for turn in episode.turns[:-1]:
        observation, _, _, _, info = env.step(turn.action)
        yield observation, info["admissible_commands"]


def test_expert_episodes_are_won_and_replay_word_for_word(games, tmp_path):
    summary = rollout(games, ExpertPolicy(0.2), tmp_path, rollouts_per_game=3, progress=False)
    assert summary.success > 0.6
    for episode in content(tmp_path).values():
        assert episode.task
        assert episode.task_type == episode.game_id.split("/")[1].split("-")[0]
        assert [(t.observation, t.admissible_commands) for t in episode.turns] == list(replayed(episode, games))


def test_branches_of_expert_episodes_replay_word_for_word(games, tmp_path):
    rollout(games, ExpertPolicy(), tmp_path / "expert", progress=False)
    rollout_branches(
        tmp_path / "expert",
        games,
        RandomPolicy(),
        tmp_path / "out",
        states_per_episode=4,
        actions_per_state=3,
        progress=False,
    )
    parents, branches = content(tmp_path / "expert"), content(tmp_path / "out")
    assert len({(branch.parent_id, branch.branch_turn) for branch in branches.values()}) > 3
    for branch in branches.values():
        assert branch.turns[: branch.branch_turn] == parents[branch.parent_id].turns[: branch.branch_turn]
        assert branch.actions <= 30
        assert [(t.observation, t.admissible_commands) for t in branch.turns] == list(replayed(branch, games))


def test_alfworld_by_its_gymnasium_id_is_an_environment_like_any_other(games, tmp_path):
    env = NamedEnvironment(id="prm_gym/ALFWorld-v0", kwargs={"game_files": [str(game.path) for game in games]})
    tasks = [Task(game.game_id, "train", options={"game_file": str(game.path)}) for game in games]
    options = {"make_env": env, "progress": False}
    rollout(tasks, ExpertPolicy(), tmp_path / "named", **options)
    rollout(games, ExpertPolicy(), tmp_path / "plain", progress=False)
    assert content(tmp_path / "named") == content(tmp_path / "plain")
    rollout_branches(tmp_path / "named", tasks, RandomPolicy(), tmp_path / "b", states_per_episode=4, **options)
    rollout_branches(tmp_path / "plain", games, RandomPolicy(), tmp_path / "c", states_per_episode=4, progress=False)
    assert content(tmp_path / "b") == content(tmp_path / "c")

"""Stage 1 of a recipe and `prm-gym label inverse` on a local Ray cluster, where a node is killed in every step."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from miniature import RECIPES
from ray_nodes import third_node_lost, two_nodes
from rich.console import Console

from prm_gym import cli
from prm_gym.envs.games import find_games
from prm_gym.policies.expert import ExpertPolicy
from prm_gym.rollout import rollout
from prm_gym.runs import stage
from prm_gym.runs.iteration import Run
from prm_gym.store import read_episodes

pytest.importorskip("alfworld", reason="needs the extra 'alfworld'")
pytestmark = pytest.mark.slow
MODEL = RECIPES.parent / "models" / "alfworld-small"
SHARES = 6


@pytest.fixture(scope="module")
def cluster():
    with two_nodes(Path(__file__).parent) as nodes:
        yield nodes


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """pi_0 is the model of the repository; Stage 1 has rollouts, branches, and the next actions of InversePRM."""
    folder = tmp_path_factory.mktemp("recipe")
    values = yaml.safe_load((RECIPES / "embedded" / "recipe.yaml").read_text())
    values["games"]["splits"] = {"train": 24, "valid_seen": 1, "valid_unseen": 1}
    values["start"] = {"model": str(MODEL)}
    values["sampling"].update(max_batch=1, processes=1)
    values["rollouts"] = {"games": 24, "per_game": 3}
    values["branches"] = {"states_per_episode": 1, "actions": 2, "continuations": 1, "temperature": 0.9}
    values["labels"] = {"kind": "inverse", "options": {"expert": ["{run}/expert"]}, "prompts": {"size": 3}}
    values["evaluation"]["games"] = 1
    del values["quality"]
    (folder / "recipe.yaml").write_text(yaml.safe_dump(values))
    for name in ("prm", "online_dpo"):
        config = yaml.safe_load((RECIPES / "embedded" / f"{name}.yaml").read_text())
        if name == "prm":
            config["loss"] = "inverse"
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(config))
    return folder


@pytest.fixture(scope="module")
def games(tmp_path_factory: pytest.TempPathFactory, recipe: Path) -> Path:
    """A run folder with games, demonstrations and pi_0."""
    run = tmp_path_factory.mktemp("run")
    begun = [each for each in Run(recipe, run, 1).stages() if each.name in ("games", "pi_0")]
    stage.run(begun, Console(quiet=True))
    rollout(find_games(run / "games", "train"), ExpertPolicy(), run / "expert", progress=False)
    return run


def stage_1(recipe: Path, run: Path) -> list[stage.Stage]:
    folders = [run / "iter1" / name for name in ("rollouts", "branches", "dataset/prm")]
    return [each for each in Run(recipe, run, 1).stages() if each.out in folders]


@pytest.fixture(scope="module")
def alone(recipe: Path, games: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of one process."""
    run = begun(games, tmp_path_factory.mktemp("alone"))
    stage.run(stage_1(recipe, run), Console(quiet=True))
    return run


def begun(games: Path, run: Path) -> Path:
    run.mkdir(exist_ok=True)
    for name in ("games", "expert", "pi_0"):
        (run / name).symlink_to(games / name)
    return run


def episodes(folder: Path) -> dict[str, Any]:
    """By id, without the log-probabilities, whose last digits vary with the batch."""
    found = list(read_episodes(folder))
    by_id = {
        episode.episode_id: replace(
            episode, turns=[replace(turn, logprob=None, sampling_logprob=None) for turn in episode.turns]
        )
        for episode in found
    }
    assert len(by_id) == len(found)
    return by_id


def rows(dataset: Path) -> list[dict[str, Any]]:
    from datasets import load_dataset

    found = [row for split in load_dataset(str(dataset)).values() for row in split]
    assert len(found) > 300
    return found


def test_stage_1_on_a_cluster_that_loses_nodes_is_that_of_one_process(
    cluster: Any, recipe: Path, games: Path, alone: Path, tmp_path: Path
) -> None:
    values = yaml.safe_load((recipe / "recipe.yaml").read_text())
    values["sampling"]["ray"] = {"address": cluster.address, "shares": SHARES}
    on_ray = tmp_path / "recipe"
    on_ray.mkdir()
    for name in ("prm", "online_dpo"):
        (on_ray / f"{name}.yaml").symlink_to(recipe / f"{name}.yaml")
    (on_ray / "recipe.yaml").write_text(yaml.safe_dump(values))
    run = begun(games, tmp_path / "run")
    for each in stage_1(on_ray, run):
        with third_node_lost(cluster, lambda folder=each.out: in_the_middle(folder)):
            stage.run([each], Console(quiet=True))
        if each.out.name != "prm":
            assert episodes(each.out) == episodes(alone / "iter1" / each.out.name)
    counts = json.loads((run / "iter1" / "rollouts" / stage.MANIFEST).read_text())
    assert counts["resumed"] > 0, "the share of the lost node went on from its episodes"
    assert rows(run / "iter1" / "dataset" / "prm") == rows(alone / "iter1" / "dataset" / "prm")


def in_the_middle(out: Path) -> bool:
    """Three shares have episodes on the disk, or a hundred next actions have been sampled."""
    parts = list(out.glob("share-*/part-*.parquet"))
    journal = out.parent / f"{out.name}.relabel.jsonl"
    return (len(parts) > 3 and len({part.parent for part in parts}) >= 3) or (
        journal.exists() and journal.read_text().count("\n") > 100
    )


def test_next_actions_of_the_command_are_those_of_one_process(cluster: Any, alone: Path, tmp_path: Path) -> None:
    command = ["label", "inverse", "--rollouts", alone / "iter1" / "rollouts", "--expert", alone / "expert"]
    command += ["--policy", MODEL, "--max-new-tokens", 16, "--temperature", 0.3, "--prompt", "compact"]
    command += ["--concurrency", 6]
    assert label(*command, "--out", tmp_path / "one") == 0
    with third_node_lost(cluster, lambda: in_the_middle(tmp_path / "many")):
        assert label(*command, "--out", tmp_path / "many", "--ray", cluster.address) == 0
    assert rows(tmp_path / "many") == rows(tmp_path / "one")


def label(*arguments: Any) -> int:
    return cli.main([str(argument) for argument in arguments])

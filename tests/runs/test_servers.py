"""A recipe's own servers: games go on where one is killed, and each checkpoint is served when it is needed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest
import yaml
from fake_vllm import action
from miniature import write_miniature
from test_replicas import COMMAND, processes
from waiting import is_running, until

from prm_gym import hosts, prompts
from prm_gym.prompts.chat import prompt_ids
from prm_gym.prompts.tokenizer import load_tokenizer
from prm_gym.rollout.episode import hash_seed
from prm_gym.runs import stage
from prm_gym.runs.iteration import Run
from prm_gym.runs.start import games
from prm_gym.store import read_episodes
from prm_gym.types import Episode

for package in ("alfworld", "transformers"):
    pytest.importorskip(package, reason="needs the extras 'alfworld' and 'trl'")

PER_GAME = 8


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded recipe on two servers; pi_0 is the base model."""
    folder = write_miniature(tmp_path_factory.mktemp("recipe") / "served")
    values = yaml.safe_load((folder / "recipe.yaml").read_text())
    values["start"] = {"model": values["start"]["model"]}
    values["games"]["splits"] = {"train": 3, "valid_unseen": 2}
    values["rollouts"] |= {"games": 3}
    values["evaluation"] |= {"games": 2}
    del values["quality"]
    values["sampling"] |= {"serve": {"command": f"{COMMAND} --seconds 0.02", "replicas": 2, "wait": 60}, "max_batch": 8}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(values))
    return folder


@pytest.fixture(scope="module")
def run(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    run = Run(recipe, tmp_path_factory.mktemp("runs") / "served", 1)
    games(run).make()
    run.policy(0).symlink_to(run.recipe.start.model or "")
    with run.servers:
        yield run


def collect(run: Run, out: Path) -> list[Episode]:
    chosen = run.games("train", 3)
    run.collect(chosen, run.sampler(0), out, rollouts_per_game=PER_GAME, max_games=3, iteration=0, seed=1)
    return sorted(read_episodes(out), key=lambda episode: episode.episode_id)


def test_servers_killed_in_the_middle_lose_and_double_nothing(run: Run, tmp_path: Path) -> None:
    """Each of the two is killed with -9 while games are played; the episodes are those of undisturbed servers."""
    expected = collect(run, tmp_path / "undisturbed")
    logs, killed = [run.iter / "servers" / f"pi_0-{i}.log" for i in (0, 1)], []

    def kill() -> None:
        for log in logs:
            time.sleep(0.3)
            killed.append(processes(log)[-1])
            os.kill(killed[-1], signal.SIGKILL)

    thread = Thread(target=kill)
    thread.start()
    found = collect(run, tmp_path / "killed")
    thread.join()
    assert len(killed) == 2
    assert until(lambda: all(len(processes(log)) == 2 for log in logs)), "both were started again"
    assert found == expected
    assert len({episode.episode_id for episode in found}) == len(found) == 3 * PER_GAME


def test_the_servers_have_played(run: Run, tmp_path: Path) -> None:
    """Every action is what the server's rule says of the prompt's ids."""
    tokenizer, prompt = load_tokenizer(run.policy(0)), prompts.load("compact")
    for episode in collect(run, tmp_path)[:3]:
        for t in range(episode.actions):
            ids = prompt_ids(tokenizer, prompt.messages(episode.state_at(t)))
            assert episode.turns[t].action == action(ids, hash_seed(episode.seed, t))


def test_servers_stay_for_the_same_checkpoint_and_end_before_a_training(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.sampler(0)
    first = run.servers.policy(run.policy(0))
    assert run.servers.policy(run.policy(0)) == first
    assert first is not None
    (tmp_path / "pi_9").mkdir()
    other = run.servers.policy(tmp_path / "pi_9")
    assert other is not None
    assert other.name == str(tmp_path / "pi_9")
    assert not set(other.urls) & set(first.urls)
    [training] = [each for each in run.stages() if each.name == "Q_0"]
    up: list[object] = []
    monkeypatch.setattr(hosts, "launch", lambda *_: up.append(dict(run.servers._up)))
    training.make()
    assert up == [{}]


def test_where_a_policy_is_served_is_no_setting(run: Run, recipe: Path) -> None:
    [played] = [each for each in run.stages() if each.name == "rollouts of pi_0"]
    assert played.settings["sampling"]["serve"]["replicas"] == 2
    names = [name for name, *_ in stage._differences(played.settings["sampling"], {"temperature": 0.3}, "sampling")]
    assert {name for name in names if name.startswith(stage._HOW_FAST)} >= {"sampling.serve", "sampling.processes"}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="kills by process id")
def test_interrupting_the_command_ends_its_servers(recipe: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-m", "prm_gym.cli", "iter", "1", "--recipe", str(recipe), "--run", str(run)]
    started = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    logs = [run / "iter1" / "servers" / f"pi_0-{i}.log" for i in (0, 1)]
    assert until(lambda: (run / "iter1" / "eval" / "pi_0_policy" / "episodes").exists(), 90), "it plays"
    started.send_signal(signal.SIGINT)
    _, said = started.communicate(timeout=60)
    assert started.returncode == 130, said
    assert not any(is_running(pid) for log in logs for pid in processes(log))

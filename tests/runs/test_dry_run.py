"""`prm-gym iter N --dry-run`: the stages left to do, the exact commands of the host, and their cost."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from miniature import write_miniature
from rich.console import Console

from prm_gym import hosts
from prm_gym.cli import main
from prm_gym.errors import UserError
from prm_gym.runs import dry_run, stage
from prm_gym.runs.iteration import Run
from prm_gym.runs.stage import Cost, Stage
from prm_gym.store import EpisodeWriter
from prm_gym.store.writer_lock import WriterLock
from prm_gym.types import Episode, StopReason, Turn


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return write_miniature(tmp_path / "miniature")


def test_rows_are_those_of_episodes_that_all_last_to_the_limit(recipe: Path, tmp_path: Path) -> None:
    """12 steps, so 13 rows an episode; the counts are those of `miniature`."""
    planned = dry_run.plan(Run(recipe, tmp_path / "run", 1).stages(), tmp_path / "run")
    assert {each.stage.name: each.rows for each in planned if each.rows is not None} == {
        "demonstrations": 18 * 13,
        "evaluation of pi_0": 3 * 13,
        "held-out branches of pi_0": (2 + 2 * 2 * 2) * 13,  # 2 games, a state of each, 2 actions, 2 continuations
        "rollouts of pi_0": 6 * 2 * 13,
        "branches of pi_0": 6 * 2 * 2 * 2 * 13,
        "evaluation of pi_1": 3 * 13,
        "evaluation of Bo2(pi_1, Q_0)": 3 * 13,
        "evaluation of Bo2_weight1_admissible(pi_1, Q_0)": 3 * 13,
    }
    assert not any(each.complete or each.disk for each in planned)  # there is nothing to go by


def test_the_commands_are_those_that_are_started(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "a run"
    for step in (9, 10):
        (checkpoint := run / "iter1" / "prm" / f"checkpoint-{step}").mkdir(parents=True)
        (checkpoint / "trainer_state.json").write_text("{}")
    planned = {each.stage.name: each for each in dry_run.plan(Run(recipe, run, 1).stages(), run)}
    started: list[list[str]] = []

    def popen(arguments: list[str], **_: object) -> None:
        started.append(arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "Popen", popen)
    for name, host_stage, out in (("pi_0 by SFT", "sft", run / "pi_0"), ("Q_0", "prm", run / "iter1" / "prm")):
        with pytest.raises(KeyboardInterrupt):
            hosts.launch("trl", host_stage, out / f"{host_stage}.yaml", out)
        assert shlex.split(planned[name].command) == started[-1]
    assert started[-1][-1].endswith("checkpoint-10")
    assert [name for name, each in planned.items() if each.command] == ["pi_0 by SFT", "Q_0", "pi_1 by online DPO"]


def _store(folder: Path, episodes: int, actions: int) -> None:
    turns = [Turn(t, "You see a desk 1.", ["look"], "look", "", "look", True, 0.0) for t in range(actions)]
    turns.append(Turn(actions, "The end.", ["look"]))
    with EpisodeWriter(folder) as writer:
        for i in range(episodes):
            stop = StopReason.STEP_LIMIT.value
            writer.add(Episode(f"e{i}", f"g{i}", "train", "find a mug", "pick", "pi_0", 0, 0, stop, turns))


@pytest.mark.parametrize("name", ["part-000001.parquet", "share-6ca4d889b2a4dc90-000065.parquet"])
def test_disk_of_a_store_goes_by_the_bytes_a_row_of_those_that_are_there(tmp_path: Path, name: str) -> None:
    """Large parts of several processes are adopted under a name of their own."""
    played = Stage("played", tmp_path / "played", {}, lambda: _store(tmp_path / "played", 10, 4), cost=Cost(rows=60))
    stage.run([played], Console(quiet=True))
    [part] = played.out.glob("*.parquet")
    part = part.rename(part.with_name(name))
    found = dry_run.plan([played, Stage("next", tmp_path / "next", {}, dict, cost=Cost(rows=200))], tmp_path)
    assert [(each.complete, each.rows) for each in found] == [(True, None), (False, 200)]
    assert found[0].disk is None
    assert found[1].disk == part.stat().st_size * 4  # 50 rows are there


def test_disk_of_a_training_is_float32_weights_and_adam_s_moments_in_each_checkpoint(tmp_path: Path) -> None:
    numpy = pytest.importorskip("safetensors.numpy")
    (tmp_path / "model").mkdir()
    for i, shape in enumerate([(10, 20), (300,)]):
        weights = {f"w{i}": np.zeros(shape, np.float16)}
        numpy.save_file(weights, tmp_path / "model" / f"model-{i}.safetensors", {"format": "pt"})
    settings = {"host": "trl", "config": {"save_total_limit": 2}}
    training = Stage("Q_0", tmp_path / "prm", settings, dict, cost=Cost(model=tmp_path / "model"))
    [found] = dry_run.plan([training], tmp_path)
    assert found.disk == 500 * (4 + 2 * (4 + 4 + 4))


def test_weights_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"\x05\0\0\0\0\0\0\0{...}")
    settings = {"host": "trl", "config": {"save_total_limit": 2}}
    with pytest.raises(UserError, match=r"model\.safetensors: is cut off or no safetensors"):
        dry_run.plan([Stage("Q_0", tmp_path / "prm", settings, dict, cost=Cost(model=tmp_path))], tmp_path)


def test_the_command_shows_all_and_writes_nothing(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    arguments = ["iter", "1", "--recipe", str(recipe), "--run", str(run), "--dry-run"]
    assert main(arguments) == 0
    assert not run.exists()
    done = Run(recipe, run, 1).stages()[0]
    done.out.mkdir(parents=True)
    (done.out / stage.MANIFEST).write_text(json.dumps({"stage": done.name, "settings": done.settings}))
    capsys.readouterr()
    assert main(arguments) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["games", "complete"] in lines
    assert ["rollouts", "of", "pi_0", "to", "do", "156"] in lines
    assert sum("prm_gym.hosts.trl" in line for line in lines) == 3


def test_a_run_is_made_by_one_process_at_a_time(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    with WriterLock(run):
        assert main(["iter", "0", "--recipe", str(recipe), "--run", str(run)]) == 2
    assert f"{run}: another process is writing here" in capsys.readouterr().err
    assert not (run / "games").exists()


def test_a_run_folder_that_a_host_s_file_cannot_hold_is_refused_at_once(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "it's"  # the files of the miniature have single quotes
    assert main(["iter", "1", "--recipe", str(recipe), "--run", str(run), "--dry-run"]) == 2
    assert capsys.readouterr().err.startswith(f"error: {run}: has characters that YAML reads otherwise in {recipe}/")


def test_servers_and_the_commands_of_each_node_are_shown(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MASTER_ADDR", "head")
    values = yaml.safe_load((recipe / "recipe.yaml").read_text())
    serve = {"command": f"{sys.executable} serve.py {{model}} {{port}}", "devices": ["0", "1"]}
    values["sampling"] |= {"serve": serve, "serve_prm": {**serve, "devices": ["2"]}}
    values["stages"] |= {"processes": 4, "nodes": 2, "launcher": "srun --ntasks-per-node=1 --comment='two words'"}
    (recipe / "recipe.yaml").write_text(yaml.safe_dump(values))
    run = tmp_path / "run"
    assert main(["iter", "1", "--recipe", str(recipe), "--run", str(run), "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"CUDA_VISIBLE_DEVICES=1 {sys.executable} serve.py {run}/pi_0 PORT" in lines
    assert f"CUDA_VISIBLE_DEVICES=0 {sys.executable} serve.py {run}/pi_1 PORT" in lines
    assert f"CUDA_VISIBLE_DEVICES=2 {sys.executable} serve.py {run}/iter1/prm PORT" in lines
    [started] = [line for line in lines if line.startswith("srun ") and " prm_gym.hosts.trl prm " in line]
    words = shlex.split(started)
    assert words[:5] == ["srun", "--ntasks-per-node=1", "--comment=two words", sys.executable, "-m"]
    assert {"--nnodes=2", "--nproc-per-node=4", "--rdzv-endpoint=head:29500"} <= set(words)
    on_nodes = [line for line in lines if line.startswith("on node ") and " prm_gym.hosts.trl prm " in line]
    assert [line.partition(": ")[0] for line in on_nodes] == ["on node 0", "on node 1"]
    assert {line.partition(": ")[2] for line in on_nodes} == {shlex.join(words[3:])}

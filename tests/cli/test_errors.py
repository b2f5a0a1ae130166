"""Errors of commands: one line that names the flag as it is written, and exit status 2."""

from __future__ import annotations

import errno
import pickle
import runpy
import sys
from pathlib import Path

import duckdb
import pytest
from rollout_world import Corridor, Walker, make_games

from prm_gym import provenance
from prm_gym.errors import UserError, check_range, of_system
from prm_gym.prompts import load
from prm_gym.provenance.checkpoint_settings import TrainedFor
from prm_gym.rollout import rollout


def test_an_abbreviated_flag_is_unknown(refusal, tmp_path):
    line = refusal("games", tmp_path / "g", "--pre", "small")
    assert line.startswith("--pre: not known here; the nearest is --preset")
    assert not (tmp_path / "g").exists()


@pytest.mark.parametrize(
    ("arguments", "flag"),
    [
        (["games", "g", "--seed", "-1"], "--seed: "),
        (["games", "g", "--preset", "huge"], "--preset: "),
        (["games", "g", "--split", "train=0"], "--split: "),
        (["label", "shaping", "--rollouts", "r", "--out", "o"], "--values, --value-model: "),
        (
            ["label", "shaping", "--rollouts", "r", "--out", "o", "--value-model", "r"],
            "--value-model: r: no model of V_mu",
        ),
        (["label", "monte_carlo", "--rollouts", "r", "--out", "o", "--train-share", "2"], "--train-share: "),
    ],
)
def test_a_parameter_of_the_library_is_told_as_the_flag(refusal, tmp_path, monkeypatch, arguments, flag):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r").mkdir()
    assert refusal(*arguments).startswith(flag)


def test_a_full_disk_is_told_with_the_folder_that_is_written(refusal, tmp_path, monkeypatch):
    def fill(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")  # as fsync raises it, without a file

    monkeypatch.setattr("prm_gym.envs.households.generate", fill)
    line = refusal("games", tmp_path / "g")
    assert line == f"{tmp_path / 'g'}: No space left on device; check the path, its rights and free space"


def test_an_error_keeps_its_parts_on_the_way_from_another_process():
    error = UserError("max_games", "got 0", "must be 1 to 4", field="train")
    back = pickle.loads(pickle.dumps(error))
    assert str(back) == str(error) == "max_games: train: got 0; must be 1 to 4"
    assert (back.where, back.field) == ("max_games", "train")


@pytest.mark.parametrize(
    ("value", "bounds", "said"),
    [
        (0, {"least": 1, "most": 2**31 - 1}, "x: got 0; must be at least 1"),
        (2**31, {"least": 1, "most": 2**31 - 1}, "x: got 2147483648; must be at least 1 and at most 2147483647"),
        (float("nan"), {"least": 0, "most": 1}, "x: got nan; must be at least 0 and at most 1"),
        (0.0, {"above": 0, "most": 1}, "x: got 0.0; must be above 0 and at most 1"),
    ],
)
def test_a_value_out_of_range_is_told_with_its_bounds(value, bounds, said):
    with pytest.raises(UserError) as caught:
        check_range("x", value, **bounds)
    assert str(caught.value) == said


class _Unnamed(OSError):
    """As libraries raise it: a text, no number."""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "/etc/x"), "/etc/x: Permission denied"),
        (OSError(errno.ENOSPC, "Error writing bytes to file. Detail: [errno 28]"), "out: No space left on device"),
        (_Unnamed("the disk said no\nand more"), "out: the disk said no"),
        (duckdb.IOException("IO Error: Could not write file\nmore"), "out: IO Error: Could not write file"),
    ],
)
def test_what_the_system_refuses_is_one_line_with_a_path(error, said):
    assert str(of_system(error, "out")) == f"{said}; check the path, its rights and free space"


@pytest.mark.parametrize(
    "arguments",
    [
        ["rollout", "--policy", "m", "--max-games", "1", "--out", "o"],
        ["evaluate", "--policy", "random", "--prm", "m", "--max-games", "1", "--out", "o"],
        ["world", "m", "--rollouts", "r", "--out", "o.json"],
    ],
)
def test_a_missing_torch_is_told_with_its_extra(refusal, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    rollout(make_games(1), Walker(), Path("r"), make_env=Corridor, progress=False)
    Path("m").mkdir()
    Path("m/config.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "torch", None)
    for module in ("prm_gym.prm.in_process", "prm_gym.policies.transformers"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    env = [] if arguments[0] == "world" else ["--env", "prm_gym.envs.toy_text:frozen_lake"]
    assert refusal(*arguments, *env) == "torch: is not installed; pip install 'prm-gym[trl]'"


@pytest.mark.parametrize("prompt", ["compact", "full", "general", "react"])
def test_a_policy_is_no_world(refusal, tmp_path, prompt):
    rollout(make_games(1), Walker(), tmp_path / "r", make_env=Corridor, progress=False)
    provenance.write(tmp_path, {"kind": "training", "trained_for": TrainedFor(load(prompt), 30, 1.0).as_dict()})
    (tmp_path / "config.json").write_text("{}")
    line = refusal("world", tmp_path, "--rollouts", tmp_path / "r", "--out", tmp_path / "o.json")
    assert line == f"WORLD: {tmp_path} is a policy; name a model trained on `prm-gym label world`"


@pytest.mark.parametrize(
    "bug",
    [ModuleNotFoundError("no x", name="x"), ValueError("x"), duckdb.ParserException("x"), duckdb.BinderException("x")],
)
def test_a_bug_keeps_its_traceback(bug):
    assert of_system(bug, "out") is None


@pytest.mark.parametrize(
    ("arguments", "place"),
    [
        (["compile", "g"], "g"),
        (["store", "check", "s"], "s"),
        (["report", "r"], "r"),
        (["evaluate", "--policy", "random", "--out", "o"], "o"),
        (["doctor"], "."),
    ],
)
def test_every_command_names_a_path(refusal, tmp_path, monkeypatch, arguments, place):
    monkeypatch.chdir(tmp_path)

    def refuse(options):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(f"prm_gym.cli.{arguments[0]}.run", refuse)
    assert refusal(*arguments).startswith(f"{tmp_path if place == '.' else place}: Input/output error; ")


@pytest.mark.parametrize(
    "arguments",
    [
        ["label", "monte_carlo", "--out", "o", "--rollouts"],
        ["show"],
        ["store", "check"],
        ["compile"],
        ["report"],
        ["iter", "1", "--recipe"],
    ],
)
def test_a_file_in_place_of_a_folder_is_told_as_one(refusal, tmp_path, arguments):
    file = tmp_path / "recipe.yaml"
    file.touch()
    line = refusal(*arguments, file)
    assert line.startswith(f"{file}: is a file and no folder")
    assert "; name " in line or "; give " in line


@pytest.mark.parametrize("program", ["stage_throughput", "rollout", "plan"])
def test_a_benchmark_of_a_missing_folder_ends_in_one_line(capsys, tmp_path, monkeypatch, program):
    if program == "stage_throughput":
        pytest.importorskip("torch")
        pytest.importorskip("datasets")
    monkeypatch.setattr("sys.argv", [program, str(tmp_path / "nope")])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / f"{program}.py"), run_name="__main__")
    told = capsys.readouterr().err
    assert ended.value.code == 2
    assert told.startswith(f"error: {tmp_path / 'nope'}: no such folder; ")
    assert told.count("\n") == 1


def test_a_full_disk_at_the_first_file_of_a_label_leaves_nothing(refusal, tmp_path, monkeypatch):
    episodes = tmp_path / "r"
    rollout(make_games(2), Walker(), episodes, make_env=Corridor, progress=False)

    def refuse(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("prm_gym.labels.dataset.pq.ParquetWriter", refuse)
    line = refusal("label", "sft", "--rollouts", episodes, "--out", tmp_path / "o")
    assert line == f"{tmp_path}/o: No space left on device; check the path, its rights and free space"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r"]


@pytest.mark.parametrize("where", ["connect", "query"])
def test_a_full_disk_under_a_label_names_what_it_writes(refusal, tmp_path, monkeypatch, where):
    episodes = tmp_path / "r"
    rollout(make_games(2), Walker(), episodes, make_env=Corridor, progress=False)
    full = duckdb.IOException('IO Error: Could not write file "work.duckdb.wal": No space left on device')

    def refuse(*arguments):
        raise full

    if where == "connect":
        monkeypatch.setattr(duckdb, "connect", refuse)
    else:
        monkeypatch.setattr("prm_gym.labels.sql_views.Rollouts._open_rows", refuse)
    line = refusal("label", "sft", "--rollouts", episodes, "--out", tmp_path / "o")
    assert line.startswith(f"{tmp_path}/.o.unfinished: IO Error: Could not write file")
    assert line.endswith("No space left on device; check the path, its rights and free space")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r"]

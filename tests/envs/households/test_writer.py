"""Folders of games: their layout, identical bytes every time, and unusable input."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from prm_gym.envs.households import generate
from prm_gym.envs.households.catalog import catalog
from prm_gym.envs.households.writer import MANIFEST
from prm_gym.errors import UserError

SPLITS = {"train": 7, "valid_unseen": 5}


def tree(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, by its relative path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def run(out: Path, *, code: str = "", hash_seed: str = "0", workers: int = 1) -> subprocess.CompletedProcess[str]:
    """Generate in another process."""
    program = (
        f"from pathlib import Path\nfrom prm_gym.envs.households import generate\n{code}\n"
        f"generate(Path({str(out)!r}), preset='small', splits={SPLITS}, seed=9, workers={workers}, progress=False)"
    )
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    return subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("games") / "out"
    assert generate(out, preset="small", splits=SPLITS, seed=9, progress=False) == SPLITS
    return out


def test_games_lie_where_alfworld_looks(folder: Path) -> None:
    found = sorted(path.relative_to(folder) for path in folder.rglob("game.tw-pddl"))
    assert Counter(path.parts[0] for path in found) == SPLITS
    for path in found:
        _split, task, trial, _file = path.parts
        task_type, target, vessel, goal, scene = task.split("-")
        game = json.loads((folder / path).read_text())
        traj = json.loads((folder / path.parent / "traj_data.json").read_text())
        assert set(game) == {"pddl_domain", "grammar", "pddl_problem", "solvable", "walkthrough"}
        assert game["solvable"] is True
        assert vessel == "None"
        assert trial.startswith("trial_T")
        assert traj["task_type"] == task_type
        assert traj["scene"]["scene_num"] == int(scene)
        parameters = traj["pddl_params"]
        assert parameters["object_target"] == target
        assert goal in (parameters["parent_target"], parameters["toggle_target"])


def test_the_task_is_one_of_alfworlds_sentences(folder: Path) -> None:
    """Stock alfworld's own function fills the same templates."""
    pytest.importorskip("alfworld")
    from alfworld.agents.utils.misc import get_templated_task_desc

    for path in folder.rglob("traj_data.json"):
        traj = json.loads(path.read_text())
        task = traj["turk_annotations"]["anns"][0]["task_desc"]
        assert task in {get_templated_task_desc(traj) for _ in range(50)}
        assert f"Your task is to: {task}." in json.loads((path.parent / "game.tw-pddl").read_text())["grammar"]


@pytest.mark.parametrize(("hash_seed", "workers"), [("1", 1), ("2", 2)])
def test_same_seed_same_bytes(folder: Path, tmp_path: Path, hash_seed: str, workers: int) -> None:
    done = run(tmp_path / "again", hash_seed=hash_seed, workers=workers)
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "again") == tree(folder)


def test_another_seed_gives_other_games(folder: Path, tmp_path: Path) -> None:
    generate(tmp_path, preset="small", splits=SPLITS, seed=10, progress=False)
    assert not set(tree(tmp_path)) & set(tree(folder)) - {MANIFEST}


def test_a_killed_run_goes_on_where_it_was(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code = (
        "import os, prm_gym.envs.households.writer as g\n"
        "write = g._write_game\n"
        "def dying(out, split, game, count=[0]):\n"
        "    count[0] += 1\n"
        "    if count[0] == 5: (out / '.partial' / split / game.trial).mkdir(parents=True); os._exit(9)\n"
        "    write(out, split, game)\n"
        "g._write_game = dying\n"
    )
    assert run(out, code=code).returncode == 9
    assert len(list(out.rglob("traj_data.json"))) == 4
    first = {path: path.stat().st_mtime_ns for path in out.rglob("traj_data.json")}
    generate(out, preset="small", splits=SPLITS, seed=9, progress=False)
    assert tree(out) == tree(folder)
    assert all(path.stat().st_mtime_ns == time for path, time in first.items())


def test_a_finished_folder_is_left_alone(folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert generate(folder, preset="small", splits=SPLITS, seed=9, progress=False) == SPLITS
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.mark.parametrize(
    ("change", "field"), [({"seed": 8}, "seed"), ({"preset": "full"}, "preset"), ({"splits": {"train": 8}}, "splits")]
)
def test_a_folder_of_other_games_is_refused(folder: Path, change: dict[str, Any], field: str) -> None:
    before = tree(folder)
    with pytest.raises(UserError, match=rf"{MANIFEST}: {field}: the games here were generated with"):
        generate(folder, **{"preset": "small", "splits": SPLITS, "seed": 9, "progress": False, **change})
    assert tree(folder) == before


def test_a_folder_with_anything_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match="is not empty"):
        generate(tmp_path, preset="small", splits=SPLITS, seed=0, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("content", ["{", "[]", "7"])
def test_a_broken_manifest_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / MANIFEST).write_text(content)
    with pytest.raises(UserError, match=MANIFEST):
        generate(tmp_path, preset="small", splits=SPLITS, seed=0, progress=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"preset": "huge"}, "preset: there is no preset 'huge'; choose one of small, full"),
        ({"splits": {}}, "splits: no split was asked for"),
        ({"splits": {"test": 3}}, "splits: 'test': there is no such split"),
        ({"splits": {"train": 0}}, "splits: train: 0 is not a number of games"),
        ({"splits": {"train": -4}}, "splits: train: -4 is not a number of games"),
        ({"splits": {"train": 1.5}}, "splits: train: 1.5 is not a number of games"),
        ({"seed": -1}, "seed: -1 is not a seed"),
        ({"workers": 0}, "workers: 0 is not a number of processes"),
    ],
)
def test_bad_parameters_are_named_before_anything_is_written(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        generate(tmp_path / "out", **{"preset": "small", "splits": SPLITS, "seed": 0, "progress": False, **change})
    assert not list(tmp_path.iterdir())


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(UserError, match="out: is not a folder"):
        generate(tmp_path / "out", preset="small", splits=SPLITS, seed=0, progress=False)
    with pytest.raises(UserError, match="cannot be written"):
        generate(tmp_path / "out" / "below", preset="small", splits=SPLITS, seed=0, progress=False)


def test_a_full_disk_is_one_line_and_leaves_no_broken_game(folder: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands in for the full disk: a write in the middle of a game fails."""
    out = tmp_path / "out"
    code = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))"
    done = run(out, code=code)
    assert done.returncode != 0
    assert "cannot be written (File too large); free space or choose another folder" in done.stderr.splitlines()[-1]
    assert not list((out / "train").rglob("*")) if (out / "train").exists() else True
    generate(out, preset="small", splits=SPLITS, seed=9, progress=False)
    assert tree(out) == tree(folder)


def test_missing_alfworld_is_named_with_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(UserError, match=r"alfworld: is not installed; run: pip install 'prm-gym\[alfworld\]'"):
            generate(tmp_path / "out", preset="small", splits=SPLITS, seed=0, progress=False)
    assert not list(tmp_path.iterdir())


def test_generating_does_not_import_alfworld(tmp_path: Path) -> None:
    """Importing it creates folders in the user's home and takes seconds."""
    done = run(tmp_path / "out", code="import atexit, sys\natexit.register(lambda: print('alfworld' in sys.modules))")
    assert done.stdout.strip() == "False"


def test_a_moved_folder_is_complete(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "moved")
    generate(tmp_path / "moved", preset="small", splits=SPLITS, seed=9, progress=False)
    assert tree(tmp_path / "moved") == tree(folder)

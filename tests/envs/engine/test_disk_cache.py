"""Compiled games on disk: complete or absent, rebuilt when unfit, byte-identical, and sufficient for play."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytest.importorskip("alfworld")

from kitchen import write_kitchen

from prm_gym.envs import engine
from prm_gym.envs.engine import file_format
from prm_gym.envs.engine.disk_cache import stored_game
from prm_gym.errors import UserError


@pytest.fixture
def kitchen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A game in a folder of its own, its cache in another (`tmp_path / "cache"`)."""
    monkeypatch.setenv("PRM_GYM_CACHE", str(tmp_path / "cache"))
    return write_kitchen(tmp_path / "games")


def compiled_file(kitchen: Path) -> Path:
    stored_game(kitchen)
    (file,) = (kitchen.parents[4] / "cache").iterdir()
    return file


def run(code: str, *arguments: object, **environment: str) -> str:
    """The standard output of a Python program."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1],
        lambda content: content[:-40] + b"x" + content[-39:],
        lambda content: b"not json\n" + content,
        lambda content: b"[]\n" + content.partition(b"\n")[2],
        lambda content: b'{"prm_gym":1}\n' + content.partition(b"\n")[2],
        lambda content: content.replace(b'"prm_gym":1', b'"prm_gym":0'),
    ],
)
def test_a_damaged_entry_is_rebuilt(kitchen: Path, damage: object) -> None:
    file = compiled_file(kitchen)
    good = file.read_bytes()
    file.write_bytes(damage(good))  # type: ignore[operator]
    assert stored_game(kitchen).tables()["task"] == "put a clean mug in countertop"
    assert file.read_bytes() == good


def test_other_versions_of_the_translators_invalidate(kitchen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = compiled_file(kitchen)
    before = file.read_bytes()
    monkeypatch.setattr(file_format, "translators", lambda: {"alfworld": "99"})
    stored_game(kitchen)
    assert json.loads(file.read_bytes().partition(b"\n")[0])["translators"] == {"alfworld": "99"}
    monkeypatch.setattr(file_format, "translators", dict)  # none installed: nothing to compare with
    written = file.stat().st_mtime_ns
    stored_game(kitchen)
    assert file.stat().st_mtime_ns == written
    assert before != file.read_bytes()


def test_a_changed_game_is_another_game(kitchen: Path, fresh_engine: None) -> None:
    assert engine.load(kitchen).task == "put a clean mug in countertop"
    kitchen.write_text(kitchen.read_text().replace("put a clean mug in countertop", "find some peace"))
    assert engine.load(kitchen).task == "find some peace"


def test_without_a_cache_folder_it_lies_beside_the_game(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PRM_GYM_CACHE")
    path = write_kitchen(tmp_path)
    stored_game(path)
    assert [file.name for file in sorted(path.parent.iterdir())] == ["game.compiled", "game.tw-pddl"]


def test_a_folder_that_cannot_be_written_to_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PRM_GYM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    path = write_kitchen(tmp_path)
    path.with_name("game.compiled").mkdir()  # in the way even of a superuser
    stored_game(path)
    assert len(list((tmp_path / "home" / "prm_gym").iterdir())) == 1
    assert sorted(file.name for file in path.parent.iterdir()) == ["game.compiled", "game.tw-pddl"]


def test_no_place_at_all_is_a_warning(kitchen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PRM_GYM_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="compiled game not kept"):
        stored_game(kitchen)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "not a game file"),
        ("{", "not a game file"),
        ("[]", "pddl_domain: missing"),
        ('{"pddl_domain": "(define", "pddl_problem": "(", "grammar": ""}', "cannot be translated"),
    ],
)
def test_a_damaged_game_file_is_named(tmp_path: Path, content: str, problem: str) -> None:
    path = tmp_path / "game.tw-pddl"
    path.write_text(content)
    with pytest.raises(UserError, match=problem) as error:
        stored_game(path)
    assert str(path) in str(error.value)


def test_compiling_ahead_needs_a_place_to_keep_it(kitchen: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"Not a directory|File exists") as told:
        engine.compile_games([kitchen], cache=tmp_path / "file" / "cache", progress=False)
    assert str(told.value.filename).startswith(str(tmp_path / "file" / "cache"))


def test_compiling_many_counts_and_names_what_is_damaged(kitchen: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.tw-pddl"
    broken.write_text(kitchen.read_text()[:-100])
    done = engine.compile_games([broken, kitchen, kitchen], progress=False)
    assert (done.ready, list(done.damaged), done.unsupported) == (2, [str(broken)], {})
    with pytest.raises(UserError, match=r"1 of 2 games: damaged; the first is .*broken"):
        engine.compile_games([kitchen, broken], progress=False, strict=True)
    with pytest.raises(UserError, match="workers"):
        engine.compile_games([kitchen], workers=0)


def test_the_lines_name_a_few_games_with_the_remedy_and_count_the_others() -> None:
    damaged = {f"{n}": f"{n}: not a game file; generate or download the game again" for n in range(4)}
    done = engine.Compilation(ready=2, unsupported={"u": "an axiom"}, damaged=damaged)
    assert done.lines() == [
        "2 of 7 games compiled",
        "u: played by stock alfworld (an axiom)",
        *(damaged[f"{n}"] for n in range(3)),
        "and 1 more damaged game files",
    ]


def test_the_bytes_do_not_depend_on_the_hash_seed(kitchen: Path, tmp_path: Path) -> None:
    code = "import sys; from prm_gym.envs import engine; engine.compile_games(sys.argv[2:], cache=sys.argv[1])"
    made = {compiled_file(kitchen).read_bytes()}
    for seed in ("1", "2"):
        run(code, tmp_path / seed, kitchen, PYTHONHASHSEED=seed)
        made.add(next((tmp_path / seed).iterdir()).read_bytes())
    assert len(made) == 1


def test_several_processes_compile_one_game(kitchen: Path, tmp_path: Path) -> None:
    """Each of two processes has four times the same game: one whole entry, the same bytes, nothing left behind."""
    done = engine.compile_games([kitchen] * 8, workers=2, cache=tmp_path / "pool", progress=False)
    assert done.ready == 8
    assert [file.read_bytes() for file in (tmp_path / "pool").iterdir()] == [compiled_file(kitchen).read_bytes()]


def test_a_compiled_game_plays_without_what_compiled_it(kitchen: Path) -> None:
    compiled_file(kitchen)
    shown = run(
        """
        import sys
        class Absent:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] in ("alfworld", "textworld", "fast_downward", "tatsu"):
                    raise ModuleNotFoundError(name, name=name)
        sys.meta_path.insert(0, Absent())
        import gymnasium, prm_gym
        env = gymnasium.make("prm_gym/ALFWorld-v0", game_files=[sys.argv[1]])
        env.reset(seed=0)
        print(env.step("go to desk 1")[0])
        """,
        kitchen,
    )
    assert shown == "You arrive at desk 1. On the desk 1, you see a desklamp 1, and a mug 2.\n"


def test_a_game_that_is_not_compiled_asks_for_alfworld(kitchen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fast_downward", None)
    with pytest.raises(UserError, match="not compiled, and fast_downward is not installed"):
        stored_game(kitchen)


def test_the_translator_leaves_no_trace(kitchen: Path) -> None:
    before = list(sys.argv)
    stored_game(kitchen)
    assert sys.argv == before

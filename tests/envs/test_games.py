"""Finding game files: the same games, order and names in any layout and place."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from pathlib import Path

import pytest

from prm_gym.envs.games import Game, default_games, find_games, game_id, read_game, task_type
from prm_gym.errors import UserError

CONTENT = {
    "pddl_domain": "(define (domain alfred))",
    "grammar": 'task :: """{"task": [{"rhs": "Your task is to: put some \\"soft\\" soap on a shelf."}]}""";',
    "pddl_problem": "(define (problem p))",
    "solvable": True,
}
TASKS = ("pick_and_place_simple-Mug-None-Desk-308", "look_at_obj_in_light-Book-None-DeskLamp-1")
PLACES = [
    f"{split}/{task}/trial_{n}" for split in ("train", "valid_seen", "valid_unseen") for task in TASKS for n in range(3)
]


def write_game(folder: Path, **changes: object) -> Path:
    folder.mkdir(parents=True)
    (folder / "traj_data.json").write_text(json.dumps({"task_type": "pick_two_obj_and_place"}))
    path = folder / "game.tw-pddl"
    path.write_text(json.dumps({**CONTENT, **changes}))
    return path


@pytest.mark.parametrize("inner", ["", "json_2.1.1"], ids=["generated", "downloaded"])
def test_the_order_is_not_that_of_the_disk(tmp_path: Path, inner: str) -> None:
    places = list(PLACES)
    random.Random(0).shuffle(places)
    for place in places:
        write_game(tmp_path / inner / place)
    games = find_games(tmp_path)
    assert [game.game_id for game in games] == sorted(PLACES)
    assert [game.game_id for game in find_games(tmp_path, "valid_seen")] == sorted(PLACES)[6:12]
    assert games[0] == Game(
        "train/look_at_obj_in_light-Book-None-DeskLamp-1/trial_0",
        "train",
        "look_at_obj_in_light",
        path=tmp_path / inner / sorted(PLACES)[0] / "game.tw-pddl",
    )


def test_games_below_a_folder_called_removable_are_found(tmp_path: Path) -> None:
    folder = tmp_path / "removable" / "Sliced"
    for place in PLACES:
        write_game(folder / place)
    write_game(folder / "train/pick_and_place_with_movable_recep-Mug-Box-Desk-1/trial_1")
    assert [game.game_id for game in find_games(folder)] == sorted(PLACES)


def test_the_name_survives_a_move_and_a_closer_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in PLACES:
        write_game(tmp_path / "here" / place)
    names = [game.game_id for game in find_games(tmp_path / "here")]
    shutil.move(tmp_path / "here", tmp_path / "there")
    assert [game.game_id for game in find_games(tmp_path / "there")] == names
    assert [game.game_id for game in find_games(tmp_path / "there" / "train")] == names[:6]
    assert [game.game_id for game in find_games(tmp_path / "there" / PLACES[0])] == [PLACES[0]]
    monkeypatch.chdir(tmp_path / "there" / "train")
    assert [game.game_id for game in find_games(".")] == names[:6]


def test_outside_of_a_split_the_name_is_task_and_trial() -> None:
    assert game_id("/data/mine/pick/trial_1/game.tw-pddl") == "pick/trial_1"


def test_what_stock_leaves_out_is_left_out(tmp_path: Path) -> None:
    write_game(tmp_path / PLACES[0])
    write_game(tmp_path / "train/pick_and_place_simple-MugSliced-None-Desk-1/trial_1")
    write_game(tmp_path / "train/pick_and_place_with_movable_recep-Mug-Box-Desk-1/trial_1")
    write_game(tmp_path / "train/pick_and_place_simple-Mug-None-Desk-2/trial_1", solvable=False)
    unmarked = write_game(tmp_path / "train/pick_and_place_simple-Mug-None-Desk-3/trial_1")
    unmarked.write_text(json.dumps({key: value for key, value in CONTENT.items() if key != "solvable"}))
    assert [game.game_id for game in find_games(tmp_path)] == [PLACES[0]]


def test_a_mark_quoted_in_a_text_is_no_mark(tmp_path: Path) -> None:
    write_game(tmp_path / PLACES[0], grammar='say "solvable": false')
    assert [game.game_id for game in find_games(tmp_path)] == [PLACES[0]]


def test_a_game_has_the_digest_of_its_file(tmp_path: Path) -> None:
    file = write_game(tmp_path / PLACES[0])
    [game] = find_games(tmp_path)
    assert game.digest == hashlib.blake2b(file.read_bytes(), digest_size=16).hexdigest()


def test_damaged_files_are_counted_and_named(tmp_path: Path) -> None:
    for place in PLACES[:4]:
        write_game(tmp_path / place)
    cut = tmp_path / PLACES[1] / "game.tw-pddl"
    cut.write_text(cut.read_text()[:100])
    write = tmp_path / PLACES[2] / "game.tw-pddl"
    write.write_text(json.dumps({"grammar": "", "solvable": True}))
    with pytest.warns(UserWarning, match="damaged|left out") as told:
        assert len(find_games(tmp_path)) == 2
    assert [str(warning.message) for warning in told] == [
        f"{cut}: left out, not a whole JSON object; generate or download the game again",
        f"{write}: left out, no field 'pddl_domain'; generate or download the game again",
    ]
    with pytest.raises(UserError, match=f"{cut}: not a whole JSON object"):
        find_games(tmp_path, strict=True)


def test_of_many_damaged_files_a_few_are_named_and_the_others_counted(tmp_path: Path) -> None:
    for place in PLACES[:8]:
        write_game(tmp_path / place)
    for place in PLACES[1:8]:
        (tmp_path / place / "game.tw-pddl").write_bytes(b"")
    with pytest.warns(UserWarning, match="damaged|left out") as told:
        find_games(tmp_path)
    assert [str(warning.message).partition(": ")[0] for warning in told] == [
        *(str(tmp_path / place / "game.tw-pddl") for place in sorted(PLACES[1:8])[:3]),
        "and 4 more damaged game files",
    ]


def test_the_games_of_the_environment_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_game(tmp_path / PLACES[0])
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path))
    assert [game.game_id for game in default_games()] == [PLACES[0]]
    monkeypatch.delenv("ALFWORLD_DATA")
    with pytest.raises(UserError, match="game_files: none given, and ALFWORLD_DATA is not set"):
        default_games()


def test_nothing_to_find_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        find_games(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no game"):
        find_games(tmp_path)
    write_game(tmp_path / PLACES[0])
    with pytest.raises(UserError, match="no game of split 'valid_unseen'"):
        find_games(tmp_path, "valid_unseen")


def test_the_task_type_is_told_by_the_folder_or_the_trajectory(tmp_path: Path) -> None:
    assert task_type(write_game(tmp_path / PLACES[0])) == "pick_and_place_simple"
    unnamed = write_game(tmp_path / "some" / "game")
    assert task_type(unnamed) == "pick_two_obj_and_place"
    (unnamed.parent / "traj_data.json").write_text("[")
    assert task_type(unnamed) == ""


def test_the_task_is_the_sentence_without_its_full_stop(tmp_path: Path) -> None:
    assert read_game(write_game(tmp_path / "a")).task == 'put some "soft" soap on a shelf'
    assert read_game(write_game(tmp_path / "b", grammar="")).task == ""


def test_a_missing_field_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="grammar: missing or not text"):
        read_game(write_game(tmp_path / "a", grammar=None))
    with pytest.raises(UserError, match="cannot read the game file"):
        read_game(tmp_path / "nowhere")

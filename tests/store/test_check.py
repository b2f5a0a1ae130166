"""Damaged parts: the loss is reported, the file is set aside and not deleted, its whole episodes stay in the store."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from test_episodes import episode, write

from prm_gym.cli import main
from prm_gym.errors import UserError
from prm_gym.labels import monte_carlo
from prm_gym.store import EpisodeWriter, episodes, finished_ids, read_episodes
from prm_gym.store.check import check, repair
from prm_gym.store.parquet import to_table


def flip(part: Path, column: str, group: int = 0) -> None:
    """Change one byte in the middle of a column chunk."""
    of_group = pq.read_metadata(part).row_group(group)
    (chunk,) = (c for c in map(of_group.column, range(of_group.num_columns)) if c.path_in_schema == column)
    content = bytearray(part.read_bytes())
    content[chunk.data_page_offset + chunk.total_compressed_size // 2] ^= 0x55
    part.write_bytes(bytes(content))


def cut(part: Path) -> None:
    part.write_bytes(part.read_bytes()[:-100])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Parts 1 to 3 of ten episodes each (four rows an episode, sixteen rows a row group)."""
    monkeypatch.setattr(episodes, "_ROW_GROUP", 16)
    monkeypatch.setattr(episodes, "_MERGED_ROWS", 40)
    for part in range(3):
        write(tmp_path / "s", *[episode(10 * part + number) for number in range(10)])
    assert len(episodes.parts(tmp_path / "s")) == 3
    return tmp_path / "s"


def lost(folder: Path) -> set[str]:
    return {name for part in check(folder).damaged for name in part.lost}


def test_a_sound_store_is_sound(folder: Path) -> None:
    found, done = repair(folder)
    assert (found.sound_parts, found.episodes, found.games, found.damaged, done) == (3, 30, 5, [], [])
    assert not list(folder.glob("*.damaged"))


@pytest.mark.parametrize("column", ["observation", "reward", "admissible_commands.list.element"])
def test_the_episodes_of_a_damaged_row_group_are_lost_and_named(folder: Path, column: str) -> None:
    flip(folder / "part-000002.parquet", column, group=1)  # rows 16 to 31 of the part
    names = {f"episode-{number:04d}" for number in range(14, 18)}
    [part] = check(folder).damaged
    assert part.lost == {name: f"game-{int(name[-4:]) % 5}" for name in names}
    assert "4 of 10 episodes are lost, of 4 games (game-0, game-1, game-2 and 1 more)" in part.line()
    found, [line] = repair(folder)
    assert "6 episodes kept" in line
    assert found.episodes == 20
    kept = {one.episode_id: one for one in read_episodes(folder)}
    assert kept.keys() == {f"episode-{number:04d}" for number in range(30)} - names
    assert check(folder).damaged == []


def test_nothing_is_deleted_and_the_command_collects_the_rest_again(folder: Path) -> None:
    part = folder / "part-000003.parquet"
    flip(part, "observation", group=0)
    content = part.read_bytes()
    missing = lost(folder)
    repair(folder)
    assert part.with_name(f"{part.name}.damaged").read_bytes() == content
    assert finished_ids(folder) == {f"episode-{number:04d}" for number in range(30)} - missing
    write(folder, *[episode(int(name[-4:])) for name in missing])
    assert [one.episode_id for one in sorted(read_episodes(folder), key=lambda one: one.episode_id)] == [
        f"episode-{number:04d}" for number in range(30)
    ]


def test_an_episode_over_two_row_groups_is_lost_with_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(episodes, "_ROW_GROUP", 6)  # the second of three episodes lies in both groups
    write(tmp_path, episode(1), episode(2), episode(3))
    flip(tmp_path / "part-000001.parquet", "observation", group=1)
    assert lost(tmp_path) == {"episode-0002", "episode-0003"}
    repair(tmp_path)
    assert [one.episode_id for one in read_episodes(tmp_path)] == ["episode-0001"]


@pytest.mark.parametrize("column", ["episode_id", "split", "reward"])
def test_a_page_whose_header_says_that_it_holds_no_data_is_damage(tmp_path: Path, column: str) -> None:
    """Arrow passes over it, and gives a table without rows if it is all of the column."""
    write(tmp_path / "s", *[episode(number) for number in range(10)])
    [part] = episodes.parts(tmp_path / "s")
    of_group = pq.read_metadata(part).row_group(0)
    (chunk,) = (c for c in map(of_group.column, range(of_group.num_columns)) if c.path_in_schema == column)
    content = bytearray(part.read_bytes())
    assert content[chunk.data_page_offset + 1] == 0  # PageType.DATA_PAGE, in Thrift's compact protocol
    content[chunk.data_page_offset + 1] = 2  # PageType.INDEX_PAGE
    part.write_bytes(bytes(content))
    assert [damaged.file for damaged in check(tmp_path / "s").damaged] == [part]
    with pytest.raises(UserError, match=r"part-000001.parquet: cannot be read"):
        list(read_episodes(tmp_path / "s"))
    with pytest.raises(UserError, match=r"part-000001.parquet: cannot be read"):
        monte_carlo.label([tmp_path / "s"], tmp_path / "labels", prompt="full")


def test_rows_whose_ids_cannot_be_read_are_counted(folder: Path) -> None:
    flip(folder / "part-000001.parquet", "episode_id", group=2)  # rows 32 to 39: two episodes
    [part] = check(folder).damaged
    assert (part.unnamed_rows, part.lost, len(part.kept)) == (8, {}, 8)
    assert "those of 8 rows that name no episode" in part.line()


def test_a_part_without_a_footer_is_set_aside_whole(folder: Path) -> None:
    cut(folder / "part-000001.parquet")
    (folder / "metrics.jsonl").write_text(json.dumps({"resumed": 20, "episodes": 10}) + "\n")
    lines = check(folder).lines()
    assert "2 of 3 parts sound, 20 episodes of 5 games" in lines[0]
    assert "part-000001.parquet: cannot be read" in lines[1]
    assert lines[2] == "the last run counted 30 episodes: 10 are lost in all"
    repair(folder)
    assert len(finished_ids(folder)) == 20
    repair_again, done = repair(folder)
    assert (repair_again.damaged, done) == ([], [])


def test_the_episodes_of_all_processes_of_the_last_run_are_counted(folder: Path) -> None:
    shares = [(0, 2, 0, 7), (0, 1, 7, 3), (0, 2, 5, 9), (0, 2, 5, 10), (1, 2, 5, 10)]  # i, n, resumed, episodes
    lines = [{"share": [i, n], "resumed": resumed, "episodes": new} for i, n, resumed, new in shares]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert check(folder).counted == 30


def test_parts_of_one_name_are_kept_beside_each_other(folder: Path) -> None:
    contents = []
    for _ in range(2):
        write(folder, episode(99))
        part = max(folder.glob("*.parquet"))
        cut(part)
        contents.append(part.read_bytes())
        repair(folder)
    assert sorted(file.read_bytes() for file in folder.glob("*.damaged*")) == sorted(contents)


def test_an_episode_without_an_end_is_damage_too(tmp_path: Path) -> None:
    whole, broken = episode(1), episode(2)
    broken.turns.pop()
    pq.write_table(to_table([whole, broken]), tmp_path / "theirs.parquet")
    [part] = check(tmp_path).damaged
    assert "has no end" in part.problem
    assert part.lost == {"episode-0002": "game-2"}
    repair(tmp_path)
    assert [one.episode_id for one in read_episodes(tmp_path)] == ["episode-0001"]


def test_killed_between_the_copy_and_the_removal_nothing_is_lost_or_doubled(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = folder / "part-000002.parquet"
    flip(part, "observation", group=1)
    content = part.read_bytes()
    with monkeypatch.context() as killed:
        killed.setattr(Path, "unlink", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            repair(folder)
    assert len(list(read_episodes(folder))) == len(finished_ids(folder)) == 26
    EpisodeWriter(folder).close()  # which removes what is replaced
    assert part.with_name(f"{part.name}.damaged").read_bytes() == content
    assert len(list(read_episodes(folder))) == 26


def test_damage_to_a_part_that_was_merged_is_none_to_check_and_readers(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(episodes, "_MERGED_ROWS", 1_000)
    with monkeypatch.context() as killed:
        killed.setattr(episodes, "_remove_replaced", lambda folder: None)
        EpisodeWriter(folder).close()
    (folder / "part-000001.parquet").write_bytes(b"")
    assert check(folder).damaged == []
    assert len(list(read_episodes(folder))) == 30
    EpisodeWriter(folder).close()
    assert [file.name for file in folder.glob("*.parquet")] == ["part-000004.parquet"]


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda folder: None, "no such folder"),
        (lambda folder: folder.mkdir(), "holds no episodes"),
        (lambda folder: pq.write_table(to_table([episode(1)]).drop_columns("action"), _in(folder)), "no column action"),
    ],
)
def test_what_is_no_store_is_left_alone(tmp_path: Path, make: object, problem: str) -> None:
    make(tmp_path / "s")  # type: ignore[operator]
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=problem):
        repair(tmp_path / "s")
    assert sorted(file for file in tmp_path.rglob("*") if file.name != ".writer.lock") == before


def _in(folder: Path) -> Path:
    folder.mkdir()
    return folder / "theirs.parquet"


def test_a_store_being_written_is_left_alone(folder: Path) -> None:
    with EpisodeWriter(folder), pytest.raises(UserError, match="is being written"):
        check(folder)


@pytest.mark.parametrize("column", ["observation", "reward", "episode_id", "stop_reason"])
def test_every_reader_of_a_damaged_part_names_the_repair_command(folder: Path, tmp_path: Path, column: str) -> None:
    flip(folder / "part-000002.parquet", column)
    with pytest.raises(UserError) as caught:
        monte_carlo.label([folder], tmp_path / "out")
    assert str(caught.value).startswith(f"{folder}/part-000002.parquet: ")
    assert f"`prm-gym store check {folder}`" in caught.value.remedy


def test_the_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["store", "check", str(folder)]) == 0
    assert capsys.readouterr().out == f"{folder}: 3 of 3 parts sound, 30 episodes of 5 games in them\n"
    flip(folder / "part-000002.parquet", "observation", group=1)
    assert main(["store", "check", str(folder)]) == 2
    shown = capsys.readouterr()
    assert "4 of 10 episodes are lost" in shown.out
    assert (
        shown.err == f"error: {folder}: 1 of 3 parts damaged; `prm-gym store check {folder} --repair` sets it aside\n"
    )
    assert main(["store", "check", str(folder), "--repair"]) == 0
    assert "collects the lost episodes again" in capsys.readouterr().out
    assert main(["store", "check", str(folder)]) == 0

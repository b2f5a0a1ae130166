"""The episode store: only whole episodes, each once, after any kill; one line for unreadable files."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prm_gym.errors import UserError
from prm_gym.store import EpisodeWriter, finished_ids, parts, read_episodes, stores, writer_lock
from prm_gym.store import episodes as store
from prm_gym.store.parquet import VERSION_KEY, to_table
from prm_gym.store.writer_lock import being_written
from prm_gym.types import Episode, StopReason, Turn, state_key


def episode(number: int, actions: int = 3, **changes: object) -> Episode:
    draw = random.Random(number)
    turns = [
        Turn(
            turn=turn,
            observation=f"You see thing {draw.randrange(100)}.\nÆ “quoted” \x00",
            admissible_commands=[f"take thing {k}" for k in range(draw.randrange(4))],
            response=f"REASON: r\nACTION: go {turn}",
            reason="r",
            action=f"go {turn}",
            action_valid=draw.random() < 0.8,
            reward=float(turn == actions - 1),
            terminated=turn == actions - 1,
            prompt_tokens=draw.randrange(1000),
            response_tokens=7,
            logprob=-draw.randrange(1000) / 64 if draw.random() < 0.8 else None,  # exact in float32
            sampling_logprob=-draw.randrange(1000) / 64 if draw.random() < 0.8 else None,
        )
        for turn in range(actions)
    ]
    turns.append(Turn(turn=actions, observation="the end", admissible_commands=["look"]))
    fields = {
        "episode_id": f"episode-{number:04d}",
        "game_id": f"game-{number % 5}",
        "split": "train",
        "task": "put a mug on a desk",
        "task_type": "pick_and_place_simple",
        "policy_id": "pi_0",
        "iteration": 1,
        "seed": 2**40 + number,
        "stop_reason": StopReason.WON,
        "turns": turns,
    }
    return Episode(**{**fields, **changes})  # type: ignore[arg-type]


def write(folder: Path, *episodes: Episode, **options: float) -> Path:
    with EpisodeWriter(folder, **options) as writer:  # type: ignore[arg-type]
        for one in episodes:
            writer.add(one)
    return folder


def content(folder: Path) -> list[dict[str, object]]:
    return sorted((asdict(one) for one in read_episodes(folder)), key=lambda one: str(one["episode_id"]))


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    branch = episode(8, parent_id="episode-0007", branch_turn=2)
    failed = episode(9, stop_reason=StopReason.POLICY_ERROR)
    written = [episode(7), branch, failed]
    read = list(read_episodes(write(tmp_path, *written)))
    for expected in written:
        for turn in expected.turns:
            history = expected.turns[: turn.turn + 1]
            turn.state_key = state_key(
                expected.game_id, [t.observation for t in history], [t.action for t in history[:-1]]
            )
    assert read == written


def test_content_does_not_depend_on_order_or_on_flushes(tmp_path: Path) -> None:
    episodes = [episode(number) for number in range(40)]
    write(tmp_path / "a", *episodes)
    write(tmp_path / "b", *reversed(episodes), flush_episodes=3)
    assert [one.episode_id for one in read_episodes(tmp_path / "a")] == [one.episode_id for one in episodes]
    assert list(read_episodes(tmp_path / "a")) == list(read_episodes(tmp_path / "b"))


def test_an_added_episode_is_durable_soon_without_another_call(tmp_path: Path) -> None:
    with EpisodeWriter(tmp_path, flush_seconds=0.05) as writer:
        writer.add(episode(1))
        deadline = time.monotonic() + 10
        while not finished_ids(tmp_path) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert finished_ids(tmp_path) == {"episode-0001"}


def test_many_flushes_leave_few_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_MOST_SMALL_PARTS", 8)
    with EpisodeWriter(tmp_path, flush_episodes=1) as writer:
        for number in range(30):
            writer.add(episode(number))
            assert len(list(tmp_path.glob("*.parquet"))) <= 9
        assert len(finished_ids(tmp_path)) == 30
    assert len(list(tmp_path.glob("*.parquet"))) == 1
    assert len(list(read_episodes(tmp_path))) == 30


def test_large_parts_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_MERGED_ROWS", 20)  # five episodes of four rows
    write(tmp_path, *[episode(number) for number in range(12)], flush_episodes=1)
    sizes = [pq.read_metadata(part).num_rows for part in parts(tmp_path)]
    assert sum(sizes) == 48
    assert max(sizes) <= 20
    assert len(sizes) == 3


def test_a_part_of_another_folder_is_adopted_without_a_copy_and_hides_no_part_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A merged part names the parts that it replaced, which in another folder are others."""
    other = tmp_path / "other"
    write(other, *(episode(number) for number in range(4)), flush_episodes=1)
    [merged] = parts(other)
    monkeypatch.setattr(store, "_MERGED_ROWS", 1)
    folder = write(tmp_path / "store", *(episode(number) for number in range(10, 14)), flush_episodes=1)
    with EpisodeWriter(folder) as writer:
        assert writer.adopt(merged)
        assert writer.adopt(merged), "a part that is here already is left as it is"
        assert episode(2).episode_id in writer.finished
    assert {each.episode_id for each in read_episodes(folder)} == {
        episode(number).episode_id for number in (*range(4), *range(10, 14))
    }
    assert sum(part.samefile(merged) for part in parts(folder)) == 1
    overlapping = write(tmp_path / "third", episode(3), episode(4))
    with EpisodeWriter(folder) as writer:
        assert not writer.adopt(parts(overlapping)[0])
        assert episode(4).episode_id not in writer.finished


@pytest.mark.parametrize("links", [True, False])
def test_an_adopted_part_outlives_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    def refuse(*files: Path) -> None:
        raise OSError("no links here")

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    [part] = parts(write(tmp_path / "other", episode(1)))
    with EpisodeWriter(tmp_path / "store") as writer:
        writer.adopt(part)
    part.unlink()
    assert content(tmp_path / "store") == content(write(tmp_path / "same", episode(1)))


def test_stores_below_a_folder_include_one_whose_parts_are_all_adopted(tmp_path: Path) -> None:
    other = write(tmp_path / "run" / "other", episode(1))
    with EpisodeWriter(tmp_path / "run" / "iter1" / "adopting") as writer:
        writer.adopt(parts(other)[0])
    (tmp_path / "run" / "dataset").mkdir()
    pq.write_table(pq.read_table(parts(other)[0]), tmp_path / "run" / "dataset" / "train.parquet")
    assert stores(tmp_path / "run") == [tmp_path / "run" / "iter1" / "adopting", other]
    assert stores(other) == [other]


@pytest.mark.parametrize("moment", ["before the rename", "before the removal"])
def test_a_kill_during_a_merge_loses_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with EpisodeWriter(tmp_path, flush_episodes=1) as writer:
        for number in range(5):
            writer.add(episode(number))
        with monkeypatch.context() as patch:
            if moment == "before the rename":
                patch.setattr(Path, "rename", killed)
            else:
                patch.setattr(store, "_remove_replaced", killed)
            with pytest.raises(KeyboardInterrupt):
                writer.close()
    assert len(list(tmp_path.iterdir())) > 5
    assert [one["episode_id"] for one in content(tmp_path)] == [f"episode-{n:04d}" for n in range(5)]
    write(tmp_path, episode(5))
    assert [one["episode_id"] for one in content(tmp_path)] == [f"episode-{n:04d}" for n in range(6)]
    assert len(list(tmp_path.glob("*.parquet*"))) == 1


def _collect(folder: Path) -> None:
    with EpisodeWriter(folder, flush_episodes=3, flush_seconds=0.01) as writer:
        for number in range(150):
            if f"episode-{number:04d}" not in writer.finished:
                writer.add(episode(number))


def test_kill_at_any_moment_and_start_again(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    draw = random.Random(5)
    for _ in range(4):
        process = context.Process(target=_collect, args=(tmp_path,))
        process.start()
        time.sleep(draw.uniform(0.02, 0.4))
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        before = finished_ids(tmp_path)
    _collect(tmp_path)
    assert before <= finished_ids(tmp_path)
    assert content(tmp_path) == content(write(tmp_path / "whole", *[episode(n) for n in range(150)]))


def test_second_writer_is_refused_in_this_process_and_in_another(tmp_path: Path) -> None:
    def try_it(queue: multiprocessing.Queue[str]) -> None:
        writer_lock._held.clear()  # as a process started apart would have it
        try:
            EpisodeWriter(tmp_path)
        except UserError as error:
            queue.put(str(error))
        else:
            queue.put("opened")

    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    with EpisodeWriter(tmp_path):
        assert being_written(tmp_path)
        with pytest.raises(UserError, match="another process is writing"):
            EpisodeWriter(tmp_path)
        process = context.Process(target=try_it, args=(queue,))
        process.start()
        assert "is writing" in queue.get(timeout=20)
        process.join()
    assert not being_written(tmp_path)
    EpisodeWriter(tmp_path).close()


def test_a_folder_that_was_moved_away_is_not_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its writer moves it between the opening of the lock file and the lock."""
    lockf = writer_lock.fcntl.lockf

    def moves(file: Any, how: int) -> None:
        lockf(file, how)
        (tmp_path / "work").rename(tmp_path / "out")

    (tmp_path / "work").mkdir()
    monkeypatch.setattr(writer_lock.fcntl, "lockf", moves)
    with pytest.raises(UserError, match="another process is writing"):
        writer_lock.WriterLock(tmp_path / "work")
    with pytest.raises(UserError, match="another process is writing"):  # or before
        writer_lock.WriterLock(tmp_path / "work")


def test_a_folder_being_written_gives_its_whole_parts(tmp_path: Path) -> None:
    with EpisodeWriter(tmp_path, flush_seconds=60) as writer:
        writer.add(episode(1))
        writer.flush()
        writer.add(episode(2))
        (tmp_path / "part-000009.parquet.tmp").write_bytes(b"PAR1 half a part")
        assert [one.episode_id for one in read_episodes(tmp_path)] == ["episode-0001"]
    (tmp_path / "part-000010.parquet.tmp").write_bytes(b"left by a kill")
    assert finished_ids(tmp_path) == {"episode-0001", "episode-0002"}
    EpisodeWriter(tmp_path).close()
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda one: one.turns.pop(), "has no end"),
        (lambda one: one.turns.pop(1), "turns are not"),
        (lambda one: setattr(one.turns[0], "reward", None), "no reward"),
        (lambda one: setattr(one, "stop_reason", ""), "stop_reason ''"),
        (lambda one: setattr(one, "branch_turn", 9), "branch_turn 9"),
    ],
)
def test_an_episode_that_is_not_whole_is_refused(tmp_path: Path, spoil: object, problem: str) -> None:
    broken = episode(1)
    spoil(broken)  # type: ignore[operator]
    with EpisodeWriter(tmp_path) as writer, pytest.raises(ValueError, match=problem):
        writer.add(broken)
    table = to_table([broken])
    pq.write_table(table, tmp_path / "by-hand.parquet")
    with pytest.raises(UserError, match=problem):
        list(read_episodes(tmp_path))


def test_an_episode_is_added_once(tmp_path: Path) -> None:
    write(tmp_path, episode(1))
    with EpisodeWriter(tmp_path) as writer, pytest.raises(ValueError, match="already"):
        writer.add(episode(1))


def test_a_failed_write_stops_the_collection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = EpisodeWriter(tmp_path, flush_seconds=0.01)
    with monkeypatch.context() as patch:
        patch.setattr(store, "_write_part", lambda *_, **__: (_ for _ in ()).throw(OSError("disk full")))
        writer.add(episode(1))
        time.sleep(0.5)
        with pytest.raises(OSError, match="disk full"):
            writer.add(episode(2))
    writer.close()
    assert "episode-0001" in finished_ids(tmp_path)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda file, table: file.write_bytes(b"no parquet"), "not a whole Parquet file"),
        (lambda file, table: _truncated(file, table), "not a whole Parquet file"),
        (lambda file, table: pq.write_table(pa.table({"a": [1]}), file), "no column episode_id"),
        (
            lambda file, table: pq.write_table(table.drop_columns(["action", "reward"]), file),
            "no column action, reward",
        ),
        (lambda file, table: pq.write_table(_set(table, "turn", pa.array(["x"] * len(table))), file), "holds string"),
        (
            lambda file, table: pq.write_table(table.replace_schema_metadata({VERSION_KEY: b"7"}), file),
            "schema version 7",
        ),
    ],
)
def test_a_part_that_cannot_be_used_is_named(tmp_path: Path, make: object, problem: str) -> None:
    write(tmp_path, episode(1))
    make(tmp_path / "zz.parquet", to_table([episode(2)]))  # type: ignore[operator]
    with pytest.raises(UserError, match=rf"zz\.parquet.*{problem}"):
        list(read_episodes(tmp_path))


def test_a_part_of_another_tool_is_read_and_its_keys_computed(tmp_path: Path) -> None:
    table = to_table([episode(1)]).drop_columns(["state_key", "parent_id", "branch_turn"])
    table = table.cast(
        pa.schema([f.with_type(pa.int64()) if pa.types.is_integer(f.type) else f for f in table.schema])
    ).replace_schema_metadata(None)
    pq.write_table(table, tmp_path / "theirs.parquet")
    expected = list(read_episodes(write(tmp_path / "ours", episode(1))))
    assert list(read_episodes(tmp_path)) == expected


def test_a_part_from_before_the_log_probabilities_is_read_and_merged(tmp_path: Path) -> None:
    old, new = episode(1), episode(2)
    table = to_table([old]).drop_columns(["logprob", "sampling_logprob"])
    pq.write_table(table, tmp_path / "part-000001.parquet")
    for turn in old.turns:
        turn.logprob = turn.sampling_logprob = None
    assert list(read_episodes(tmp_path)) == [old]
    write(tmp_path, new)
    assert len(parts(tmp_path)) == 1
    assert list(read_episodes(tmp_path)) == [old, new]


def test_a_relative_folder_with_a_colon_is_no_uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    expected = [episode(1), episode(2)]
    for one in expected:
        write(Path("c:cat:d"), one)
    assert list(read_episodes("c:cat:d")) == expected


def test_a_part_of_another_tool_may_be_numbered_by_no_number(tmp_path: Path) -> None:
    pq.write_table(to_table([episode(1)]), tmp_path / "part-².parquet")
    write(tmp_path, episode(2))
    assert finished_ids(tmp_path) == {"episode-0001", "episode-0002"}


def test_no_folder_and_an_empty_folder(tmp_path: Path) -> None:
    assert finished_ids(tmp_path / "none") == set()
    with pytest.raises(UserError, match="no such folder"):
        list(read_episodes(tmp_path / "none"))
    with pytest.raises(UserError, match="holds no episodes"):
        list(read_episodes(tmp_path))


def _truncated(file: Path, table: pa.Table) -> None:
    pq.write_table(table, file)
    file.write_bytes(file.read_bytes()[:-100])


def _set(table: pa.Table, name: str, column: pa.Array) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), name, column)

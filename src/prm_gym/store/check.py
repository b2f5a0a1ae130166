"""Find damaged parts of an episode store, report the loss, and set them aside: `prm-gym store check`.

Every page of every part is read and its checksum verified. The readable row groups of a damaged part are kept (8,192
rows each, about 300 episodes). Nothing can be read from a part without a footer, as of a truncated file; only
metrics.jsonl, where the last run counted its episodes, tells how many are missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from prm_gym import provenance
from prm_gym.errors import UserError, no_folder
from prm_gym.store.episodes import part_files, set_aside
from prm_gym.store.metrics import read_metrics
from prm_gym.store.parquet import UNREADABLE, episodes_of, problem_of, read_part, replaced_by
from prm_gym.store.writer_lock import WriterLock, being_written
from prm_gym.types import Episode

_GAMES_NAMED = 3


@dataclass
class DamagedPart:
    """A damaged part: its problem, the whole episodes that can be read, and the ids of those that cannot, by game."""

    file: Path
    problem: str
    kept: list[Episode] = field(default_factory=list)
    lost: dict[str, str] = field(default_factory=dict)  # game_id by episode_id
    unnamed_rows: int = 0  # rows whose episode is unknown
    bytes: int | None = None  # size of a part without a footer, which cannot be read at all

    def line(self) -> str:
        """The part, its problem and its loss."""
        if self.bytes is not None:
            return f"{self.file}: {self.problem}; all {self.bytes:,} bytes are lost, of episodes unknown"
        games = sorted(set(self.lost.values()))
        more = len(games) - _GAMES_NAMED
        named = ", ".join(games[:_GAMES_NAMED]) + (f" and {more:,} more" if more > 0 else "")
        lost = f"{len(self.lost):,} of {len(self.lost) + len(self.kept):,} episodes are lost"
        lost += f", of {len(games):,} games ({named})" if games else ""
        unnamed = f", and those of {self.unnamed_rows:,} rows that name no episode" if self.unnamed_rows else ""
        return f"{self.file}: {self.problem}; {lost}{unnamed}"


@dataclass
class StoreCheck:
    """The result of a check. `episodes` and `games` are those of the sound parts."""

    folder: Path
    sound_parts: int
    episodes: int
    games: int
    damaged: list[DamagedPart]
    counted: int | None  # episodes, by metrics.jsonl

    def lines(self) -> list[str]:
        """A line on the sound parts, then one for each damaged part."""
        parts = f"{self.sound_parts:,} of {self.sound_parts + len(self.damaged):,} parts sound"
        first = f"{self.folder}: {parts}, {self.episodes:,} episodes of {self.games:,} games in them"
        lines = [first, *(part.line() for part in self.damaged)]
        there = self.episodes + sum(len(part.kept) for part in self.damaged)
        if self.damaged and self.counted is not None and self.counted > there:
            missing = self.counted - there
            lines.append(f"the last run counted {self.counted:,} episodes: {missing:,} are lost in all")
        return lines


def check(folder: Path) -> StoreCheck:
    """Read every part of the store.

    Raises
    ------
    UserError
        No such folder, no part in it, one that is being written, or a Parquet file that is no part of a store.
    """
    if not folder.is_dir():
        raise UserError(folder, f"{no_folder(folder)} of episodes", "name a folder that `prm-gym rollout` wrote")
    if being_written(folder):
        raise UserError(folder, "is being written", "run again when its writer has finished")
    if not part_files(folder):
        raise UserError(folder, "holds no episodes", "name a folder that `prm-gym rollout` wrote")
    return _check(folder)


def repair(folder: Path) -> tuple[StoreCheck, list[str]]:
    """As `check`, and rename every damaged part to `*.damaged`. Its whole episodes stay in the store.

    Returns the check, and a line for each part that was set aside.
    """
    check(folder)  # raises its errors before the folder is locked
    with WriterLock(folder):
        found = _check(folder)
        done = [
            f"{part.file.name}: set aside as {set_aside(part.file, part.kept)}, {len(part.kept):,} episodes kept"
            for part in found.damaged
        ]
    return found, done


def remedy(folder: Path) -> str:
    """How to collect the lost episodes again."""
    record = provenance.read(folder)
    command = record["runs"][-1]["command"] if record and record["runs"] else "the command that wrote them"
    return f"{command} collects the lost episodes again"


def _check(folder: Path) -> StoreCheck:
    damaged, replaced = [], set()
    sound: dict[Path, dict[str, str]] = {}  # game_id by episode_id
    for file in part_files(folder):
        try:
            ids = {episode.episode_id: episode.game_id for episode in read_part(file)}
            replaced.update(replaced_by(file))
            sound[file] = ids
        except UserError as error:
            damaged.append(_inspect(file, error))
    live = {file: ids for file, ids in sound.items() if file.name not in replaced}
    there = {episode_id: game for ids in live.values() for episode_id, game in ids.items()}
    damaged = [part for part in damaged if part.file.name not in replaced]
    for part in damaged:  # an episode that is also in a sound part is not lost
        part.kept = [episode for episode in part.kept if episode.episode_id not in there]
        part.lost = {episode_id: game for episode_id, game in part.lost.items() if episode_id not in there}
    return StoreCheck(folder, len(live), len(there), len(set(there.values())), damaged, _counted(folder))


def _inspect(file: Path, error: UserError) -> DamagedPart:
    """Raises `UserError` for a sound Parquet file that is not a part of a store, or of another schema version."""
    part = DamagedPart(file, error.problem)
    try:
        pq.read_schema(file)
    except UNREADABLE:
        part.bytes = file.stat().st_size
        return part
    replaced_by(file)  # its columns and version
    whole: dict[str, Episode] = {}
    for episode in episodes_of(_readable_batches(file)):
        if problem_of(episode) is None and episode.episode_id not in whole:
            whole[episode.episode_id] = episode
        else:
            whole.pop(episode.episode_id, None)
    part.kept = list(whole.values())
    parquet = pq.ParquetFile(file, page_checksum_verification=True)
    for group in range(parquet.num_row_groups):
        try:
            ids = _row_group(parquet, group, ["episode_id", "game_id"])
        except UNREADABLE:
            part.unnamed_rows += parquet.metadata.row_group(group).num_rows
            continue
        for episode_id, game in zip(ids["episode_id"].to_pylist(), ids["game_id"].to_pylist(), strict=True):
            if episode_id not in whole:
                part.lost[episode_id] = game
    return part


def _readable_batches(file: Path) -> Iterator[pa.RecordBatch]:
    parquet = pq.ParquetFile(file, page_checksum_verification=True)
    for group in range(parquet.num_row_groups):
        try:
            table = _row_group(parquet, group)
        except UNREADABLE:
            continue
        yield from table.to_batches(2048)


def _row_group(parquet: pq.ParquetFile, group: int, columns: list[str] | None = None) -> pa.Table:
    """Raises one of `UNREADABLE` unless all rows are found (see `parquet.check_rows`)."""
    table = parquet.read_row_group(group, columns=columns)
    if len(table) != parquet.metadata.row_group(group).num_rows:
        raise pa.ArrowInvalid("rows are missing")
    return table


def _counted(folder: Path) -> int | None:
    """The episodes that the last run counted, by the last line of each of its processes."""
    lines = read_metrics(folder)
    try:
        _, processes = lines[-1]["share"]
        last = {i: line for line in lines for i, n in [line["share"]] if n == processes}
        return sum(int(line["resumed"] + line["episodes"]) for line in last.values())
    except (KeyError, TypeError, ValueError, IndexError):
        return None

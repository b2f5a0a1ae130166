"""Episodes on disk: a folder of Parquet parts, one row per turn, an episode whole or not at all.

`EpisodeWriter` appends, `finished_ids` lists what need not be collected again, `read_episodes` reads, `parts` lists the
files for a query engine. Left out: deleting or changing an episode.

No episode is lost or counted twice:

- A part is written to a temporary file, synced and renamed, so a reader sees whole parts only.
- An added episode is durable at the next flush, at most `flush_seconds` (or `flush_episodes`) later.
- Small parts are merged from time to time and at the end. The metadata of a merged part names the parts it replaces,
  and readers skip those, so a kill before the old parts are removed duplicates nothing.
- A part adopted from another folder keeps its content and gets the name `share-<hash of its episodes>-<n>.parquet`.
- A folder has one writer (`writer_lock`).

`parquet` defines a part, and what a reader refuses.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from itertools import chain, count
from pathlib import Path
from types import TracebackType

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from prm_gym.errors import UserError, no_folder
from prm_gym.store.parquet import (
    ADOPTED,
    PARTS,
    REPLACES_KEY,
    SCHEMA,
    check_rows,
    problem_of,
    read_columns,
    read_part,
    reading,
    replaced_by,
    to_table,
)
from prm_gym.store.writer_lock import WriterLock
from prm_gym.types import Episode, StopReason

DAMAGED = ".damaged"  # suffix of parts that were set aside; readers skip them
_MERGED_ROWS = 50_000  # parts of this many rows are not merged; about 1,600 episodes, 100 MB of text
_MOST_SMALL_PARTS = 64  # more are merged
_ROW_GROUP = 8_192


class EpisodeWriter:
    """Appends whole episodes to a folder, which is created if missing. Thread-safe.

    Parameters
    ----------
    folder
        The folder of the parts. It may be opened again later; its episodes stay.
    flush_episodes, flush_seconds
        A part is written when this many episodes are pending, or this many seconds after the first was added.

    Raises
    ------
    UserError
        Another writer has the folder, or a part in it cannot be read.

    Example
    -------
    >>> with EpisodeWriter(Path("runs/demo/rollouts")) as writer:  # doctest: +SKIP
    ...     if episode_id not in writer.finished:
    ...         writer.add(episode)
    """

    def __init__(self, folder: str | Path, *, flush_episodes: int = 64, flush_seconds: float = 2.0) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._flush_episodes, self._flush_seconds = flush_episodes, flush_seconds
        self._lock = WriterLock(self.folder)
        try:
            for leftover in self.folder.glob("*.parquet.tmp"):
                leftover.unlink()
            _remove_replaced(self.folder)
            self.finished = finished_ids(self.folder)
        except BaseException:
            self._lock.release()
            raise
        self._waiting: list[Episode] = []
        self._small_parts = 0
        self._mutex = threading.RLock()
        self._timer: threading.Timer | None = None
        self._failure: Exception | None = None

    def add(self, episode: Episode) -> None:
        """Add a finished episode. It is durable after the next flush, which is automatic.

        Raises
        ------
        ValueError
            The episode has no end, a gap in its turns, or is in the store already.
        """
        problem = problem_of(episode)
        if problem or episode.episode_id in self.finished:
            raise ValueError(f"episode {episode.episode_id}: {problem or 'is in the store already'}")
        with self._mutex:
            if self._failure:
                raise self._failure
            self.finished.add(episode.episode_id)
            self._waiting.append(episode)
            if len(self._waiting) >= self._flush_episodes:
                self.flush()
            elif self._timer is None:
                self._timer = threading.Timer(self._flush_seconds, self._flush_by_timer)
                self._timer.daemon = True
                self._timer.start()

    def adopt(self, part: Path) -> bool:
        """Add the episodes of `part` of another folder by a link to the file, without copying it where links exist.

        False, and nothing done, if only some of them are here already. Raises `UserError` as `parts`.
        """
        ids = _ids_in(part)
        with self._mutex:
            if new := ids - self.finished:
                if new != ids:
                    return False
                digest = blake2b("".join(sorted(ids)).encode(), digest_size=8).hexdigest()
                link_or_copy(part, self.folder / f"{ADOPTED}{digest}-{part.name.rpartition('part-')[2]}")
                _sync(self.folder)
                self.finished |= ids
        return True

    def flush(self) -> None:
        """Write every episode added so far; they survive a kill or a power failure once this returns."""
        with self._mutex:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if self._waiting:
                _write_part(self.folder, to_table(self._waiting), replaces=())
                self._waiting = []
                self._small_parts += 1
                if self._small_parts >= _MOST_SMALL_PARTS:
                    _merge_small_parts(self.folder)
                    self._small_parts = 0

    def close(self) -> None:
        """Flush, merge the small parts (sorted by episode_id), and release the folder."""
        with self._mutex:
            if self._lock.released:
                return
            try:
                self.flush()
                _merge_small_parts(self.folder)
            finally:
                self._failure = ValueError("this writer is closed")
                self._lock.release()

    def _flush_by_timer(self) -> None:
        try:
            self.flush()
        except Exception as error:  # raised again in the caller's thread: a full disk must stop the collection
            self._failure = error

    def __enter__(self) -> EpisodeWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def finished_ids(folder: str | Path) -> set[str]:
    """The ids of all episodes in `folder`; empty if there is no folder."""
    ids: set[str] = set()
    for part in _whole_parts(Path(folder)):
        ids |= _ids_in(part)
    return ids


def _ids_in(part: Path) -> set[str]:
    return set(pc.unique(read_columns(part, ["episode_id"])["episode_id"]).to_pylist())


def won_ids(folder: str | Path) -> set[str]:
    """The ids of the episodes in `folder` that were won; empty if there is no folder."""
    ids: set[str] = set()
    for part in _whole_parts(Path(folder)):
        ends = read_columns(part, ["episode_id", "stop_reason"])
        ids.update(ends.filter(pc.field("stop_reason") == StopReason.WON.value)["episode_id"].to_pylist())
    return ids


def parts(folder: str | Path) -> list[Path]:
    """The parts of a folder, sorted by name, each with a readable footer, the right schema version and all columns.

    Raises
    ------
    UserError
        No such folder, no episode in it, or a part that cannot be used.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(folder, f"{no_folder(folder)} of episodes", "name a folder that `prm-gym rollout` wrote")
    found = _whole_parts(folder)
    if not found:
        raise UserError(folder, "holds no episodes", "run `prm-gym rollout` into it first")
    return found


def stores(root: str | Path) -> list[Path]:
    """The folders of episodes below `root`, itself included, sorted. Linked folders below it are left out."""
    return sorted({file.parent for file in Path(root).rglob("*.parquet") if file.name.startswith(PARTS)})


def read_episodes(*folders: str | Path) -> Iterator[Episode]:
    """Every episode of the folders, in the order of the parts, one in memory at a time.

    While a folder is being written, only the parts present at the start are read.

    Raises
    ------
    UserError
        As `parts`; an episode without an end; the rows of an episode not together and in order.
    """
    for folder in folders:
        for part in parts(folder):
            yield from read_part(part)


def set_aside(part: Path, kept: Sequence[Episode]) -> Path:
    """Rename a damaged part to the suffix `DAMAGED`, and write its whole episodes `kept` to a new part.

    Only the writer of the folder may call it. Returns the new path of the damaged part. If it is killed, the damaged
    part is still there under one or both names, and no episode counts twice.
    """
    names = (part.with_name(f"{part.name}{DAMAGED}{number}") for number in chain([""], count(2)))
    aside = next(name for name in names if not name.exists())
    shutil.copy2(part, aside)
    _sync(aside)
    if kept:
        _write_part(part.parent, to_table(kept), replaces=[part])
    part.unlink()
    _sync(part.parent)
    return aside


def _merge_small_parts(folder: Path) -> None:
    """Merge neighbouring small parts into parts of up to 50,000 rows. Only the writer of the folder may call it.

    Rows are sorted by episode_id, so a store that fits one part has the same rows in whatever order episodes came.
    """
    run: list[Path] = []
    rows = 0
    for file in [*_whole_parts(folder), None]:
        own = file and file.name.startswith(PARTS)
        size = pq.read_metadata(file).num_rows if own else _MERGED_ROWS
        if rows + size > _MERGED_ROWS:
            if len(run) > 1:
                merged = pa.concat_tables([_read_whole(part) for part in run])
                order = [("episode_id", "ascending"), ("turn", "ascending")]
                _write_part(folder, merged.sort_by(order), replaces=run)
                _remove_replaced(folder)
                del merged
                pa.default_memory_pool().release_unused()  # else the process keeps up to 200 MB
            run, rows = [], 0
        if file and size < _MERGED_ROWS:
            run.append(file)
            rows += size


def _read_whole(part: Path) -> pa.Table:
    """Verifies checksums, since a merge would give damaged pages new ones."""
    with reading(part):
        table = pq.read_table(part, schema=SCHEMA, page_checksum_verification=True)
        check_rows(part, len(table))
        return table


def _write_part(folder: Path, table: pa.Table, replaces: Sequence[Path]) -> None:
    number = max((int(file.stem[5:]) for file in part_files(folder) if file.stem[5:].isdecimal()), default=0) + 1
    final = folder / f"part-{number:06d}.parquet"
    temporary = final.with_name(final.name + ".tmp")
    metadata = dict(SCHEMA.metadata)
    if replaces:
        metadata[REPLACES_KEY] = json.dumps([part.name for part in replaces]).encode()
    table = table.replace_schema_metadata(metadata)
    options = {"compression": "zstd", "row_group_size": _ROW_GROUP, "write_page_checksum": True}
    pq.write_table(table, temporary.absolute(), **options)  # Arrow takes a relative name with a colon for a URI
    _sync(temporary)
    temporary.rename(final)
    _sync(folder)


def _remove_replaced(folder: Path) -> None:
    whole = set(_whole_parts(folder))
    for file in part_files(folder):
        if file not in whole:
            file.unlink()


def link_or_copy(file: Path, target: Path) -> None:
    """Make `target` the same file as `file`, or a copy of it on a file system without hard links."""
    try:
        os.link(file, target)
    except OSError:
        temporary = target.with_name(f"{target.name}.tmp")
        shutil.copy2(file, temporary)
        _sync(temporary)
        temporary.rename(target)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def part_files(folder: Path) -> list[Path]:
    """All Parquet files of the folder, unchecked, sorted by name."""
    return sorted(folder.glob("*.parquet"))


def _whole_parts(folder: Path) -> list[Path]:
    """Parts with a sound footer, except those that a merged part replaces, which may be damaged."""
    files = part_files(folder)
    replaced: set[str] = set()
    for file in reversed(files):  # a merged part is numbered after those that it replaces
        try:
            replaced.update(replaced_by(file))
        except FileNotFoundError:  # a merge has removed it since it was listed
            return _whole_parts(folder)
        except UserError:
            if file.name not in replaced:
                raise
    return [file for file in files if file.name not in replaced]

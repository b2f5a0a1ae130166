"""One part of the episode store: its schema, its checks, and the conversion between rows and episodes.

A part is a Parquet file with one row per turn; the rows of an episode are together and in order. `episodes` manages a
folder of them. A reader refuses a file that is not whole Parquet, lacks a column, or has another schema version. Parts
without a version (written by another tool) are read if every column is there. A missing `state_key` is computed;
`parent_id`, `branch_turn` and the log-probabilities may be missing.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from prm_gym.errors import UserError, first_line
from prm_gym.types import STATE_KEY_BYTES, Episode, StopReason, Turn, extend_key, state_key
from prm_gym.unicode import well_formed

SCHEMA_VERSION = 1
VERSION_KEY, REPLACES_KEY = b"prm_gym.schema_version", b"prm_gym.replaces"

ADOPTED = "share-"  # the names of parts adopted from another folder begin so
PARTS = ("part-", ADOPTED)  # the names of all parts begin so

UNREADABLE = (pa.ArrowException, OSError)  # raised by Arrow for a damaged file

_EPISODE_COLUMNS = [
    ("episode_id", pa.string()),
    ("game_id", pa.string()),
    ("split", pa.string()),
    ("task", pa.string()),
    ("task_type", pa.string()),
    ("policy_id", pa.string()),
    ("iteration", pa.int32()),
    ("seed", pa.int64()),
    ("stop_reason", pa.string()),
    ("parent_id", pa.string()),
    ("branch_turn", pa.int32()),
]
_TURN_COLUMNS = [
    ("turn", pa.int32()),
    ("observation", pa.string()),
    ("admissible_commands", pa.list_(pa.string())),
    ("response", pa.string()),
    ("reason", pa.string()),
    ("action", pa.string()),
    ("action_valid", pa.bool_()),
    ("reward", pa.float32()),
    ("terminated", pa.bool_()),
    ("truncated", pa.bool_()),
    ("state_key", pa.binary(STATE_KEY_BYTES)),
    ("prompt_tokens", pa.int32()),
    ("response_tokens", pa.int32()),
    ("logprob", pa.float32()),
    ("sampling_logprob", pa.float32()),
]
SCHEMA = pa.schema([*_EPISODE_COLUMNS, *_TURN_COLUMNS], metadata={VERSION_KEY: str(SCHEMA_VERSION)})
_NULLABLE = ("admissible_commands", "action_valid")  # null: the environment does not tell
OPTIONAL_COLUMNS = {"parent_id", "branch_turn", "state_key", "logprob", "sampling_logprob"}


def replaced_by(file: Path) -> list[str]:
    """Check the footer of a part. Returns the names of the parts that it replaces (of a merged part).

    A part adopted from another folder replaces none: the names in it are of that folder.

    Raises
    ------
    UserError
        Not whole Parquet, another schema version, or a column missing or of another type.
    """
    try:
        schema = pq.read_schema(file)
    except FileNotFoundError:
        raise
    except UNREADABLE as error:
        raise damaged(file, f"is not a whole Parquet file ({first_line(error)})") from None
    _check_schema(file, schema)
    if file.name.startswith(ADOPTED):
        return []
    return list(json.loads((schema.metadata or {}).get(REPLACES_KEY, b"[]")))


def damaged(file: Path, problem: str) -> UserError:
    """The error for a part that cannot be read."""
    folder = shlex.quote(str(file.parent))
    return UserError(file, problem, f"`prm-gym store check {folder}` tells what is lost, --repair sets it aside")


@contextmanager
def reading(file: Path) -> Iterator[None]:
    """Turn Arrow's errors on reading a part into `UserError`."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(file, "vanished while it was read", "run again when its writer has finished") from None
    except UNREADABLE as error:
        raise damaged(file, f"cannot be read ({first_line(error)})") from None


def read_columns(file: Path, names: Sequence[str]) -> pa.Table:
    """Columns of a part in the types of `SCHEMA`, with the checksum of every page verified.

    Raises `UserError` if it cannot be read.
    """
    with reading(file):
        table = pq.read_table(file, columns=list(names), page_checksum_verification=True)
        check_rows(file, len(table))
        return table.cast(pa.schema([SCHEMA.field(name) for name in table.schema.names]))


def check_rows(file: Path, found: int) -> None:
    """Raise `UserError` if rows of a part are missing: Arrow skips a page whose damaged header says it is empty."""
    there = pq.read_metadata(file).num_rows
    if found != there:
        raise damaged(file, f"cannot be read ({found:,} of {there:,} rows)")


def scan(file: Path) -> Iterator[Episode]:
    """Consecutive rows of one episode_id as episodes, in the order of the part, without checks of the episode."""
    found = 0

    def batches() -> Iterator[pa.RecordBatch]:
        nonlocal found
        for batch in pq.ParquetFile(file, page_checksum_verification=True).iter_batches(batch_size=2048):
            found += len(batch)
            yield batch

    with reading(file):
        yield from episodes_of(batches())
        check_rows(file, found)


def episodes_of(batches: Iterable[pa.RecordBatch]) -> Iterator[Episode]:
    """As `scan`, for rows in memory."""
    episode: Episode | None = None
    for batch in batches:
        names = set(batch.schema.names)
        values = {
            field.name: batch[field.name].cast(field.type).to_pylist() if field.name in names else [None] * len(batch)
            for field in SCHEMA
        }
        of_episode = [values[name] for name, _ in _EPISODE_COLUMNS]
        of_turn = [values[name] for name, _ in _TURN_COLUMNS]
        for row, episode_id in enumerate(values["episode_id"]):
            if episode is None or episode.episode_id != episode_id:
                if episode is not None:
                    yield _with_keys(episode)
                episode = _episode([column[row] for column in of_episode])
            episode.turns.append(_turn([column[row] for column in of_turn]))
            episode.stop_reason = values["stop_reason"][row] or episode.stop_reason
    if episode is not None:
        yield _with_keys(episode)


def problem_of(episode: Episode) -> str | None:
    """Why an episode is not whole, or None. A whole one has turns 0..n, rewards on all but the last, a stop reason."""
    if [turn.turn for turn in episode.turns] != list(range(len(episode.turns))) or not episode.turns:
        return "its turns are not 0, 1, 2, ..."
    if episode.turns[-1].reward is not None:
        return "it has no end (a last row with the final observation and no reward)"
    if any(turn.reward is None for turn in episode.turns[:-1]):
        return "a turn before the last has no reward"
    if episode.stop_reason not in set(StopReason):
        return f"its stop_reason {episode.stop_reason!r} is none of {', '.join(StopReason)}"
    if not 0 <= episode.branch_turn < len(episode.turns):
        return f"its branch_turn {episode.branch_turn} is none of its turns"
    return None


def read_part(file: Path) -> Iterator[Episode]:
    """Every episode of a part, one in memory at a time.

    Raises
    ------
    UserError
        An episode without an end, or whose rows are not together and in order; a file that cannot be read.
    """
    seen: set[str] = set()
    for episode in scan(file):
        problem = "its rows are apart" if episode.episode_id in seen else problem_of(episode)
        if problem:
            remedy = "write whole episodes, rows in the order of episode_id and turn"
            raise UserError(file, f"episode {episode.episode_id}: {problem}", remedy)
        seen.add(episode.episode_id)
        yield episode


def to_table(episodes: Sequence[Episode]) -> pa.Table:
    columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
    for episode in sorted(episodes, key=lambda episode: episode.episode_id):
        for name, _ in _EPISODE_COLUMNS:
            columns[name].extend([_storable(getattr(episode, name))] * len(episode.turns))
        for name, _ in _TURN_COLUMNS:
            columns[name].extend([_storable(getattr(turn, name)) for turn in _with_keys(episode).turns])
    return pa.Table.from_pydict(columns, schema=SCHEMA)


def _storable(value: Any) -> Any:
    if isinstance(value, str):
        return well_formed(value)
    return [well_formed(text) for text in value] if isinstance(value, list) else value


def _check_schema(file: Path, schema: pa.Schema) -> None:
    version = (schema.metadata or {}).get(VERSION_KEY, str(SCHEMA_VERSION).encode()).decode()
    if version != str(SCHEMA_VERSION):
        raise UserError(
            file,
            f"has schema version {version}, this prm_gym reads {SCHEMA_VERSION}",
            "collect again, or install the prm_gym that wrote it",
        )
    missing = [name for name in SCHEMA.names if name not in schema.names and name not in OPTIONAL_COLUMNS]
    if missing:
        raise UserError(
            file,
            f"is no part of an episode store: no column {', '.join(missing)}",
            "name a folder that `prm-gym rollout` wrote",
            field=missing[0],
        )
    for field in SCHEMA:
        if field.name in schema.names and not _same_kind(field.type, schema.field(field.name).type):
            raise UserError(
                file,
                f"holds {schema.field(field.name).type}, not {field.type}",
                "name a folder that `prm-gym rollout` wrote",
                field=field.name,
            )


def _same_kind(expected: pa.DataType, found: pa.DataType) -> bool:
    """Whether two types differ in width at most (int64 for int32, large_string for string)."""
    if pa.types.is_null(found):
        return True
    if pa.types.is_dictionary(found):
        found = found.value_type
    if pa.types.is_list(expected):
        return (pa.types.is_list(found) or pa.types.is_large_list(found)) and _same_kind(
            expected.value_type, found.value_type
        )
    kinds = (
        pa.types.is_boolean,
        pa.types.is_integer,
        pa.types.is_floating,
        lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind),
        lambda kind: pa.types.is_binary(kind) or pa.types.is_fixed_size_binary(kind) or pa.types.is_large_binary(kind),
    )
    return any(kind(expected) and kind(found) for kind in kinds)


def _with_keys(episode: Episode) -> Episode:
    """Compute every missing `state_key` of the episode along the chain."""
    previous = None
    for turn in episode.turns:
        if not turn.state_key:
            if previous is None:
                turn.state_key = state_key(episode.game_id, [turn.observation], [])
            else:
                turn.state_key = extend_key(previous.state_key, previous.action, turn.observation)
        previous = turn
    return episode


def _episode(values: Sequence[Any]) -> Episode:
    fields = {name: value for (name, _), value in zip(_EPISODE_COLUMNS, values, strict=True)}
    return Episode(**{**fields, "branch_turn": fields["branch_turn"] or 0})


def _turn(values: Sequence[Any]) -> Turn:
    fields = dict(zip((name for name, _ in _TURN_COLUMNS), values, strict=True))
    known = {name: value for name, value in fields.items() if value is not None or name in _NULLABLE}
    return Turn(**{"turn": -1, "observation": "", **known})

"""Q of every action of stored episodes, or of every chat in a JSONL file, into a Parquet or JSONL file.

Rows are read, scored and written in blocks, in the order of the source, so memory does not grow with it. The output is
written atomically. Its columns, by source:

    episodes  episode_id, policy_id, game_id, turn, state_key (hexadecimal), action, q, logit
    chats     line (from 1), q, logit

`logit` is the PRM's output and q = 1 / (1 + exp(-logit)); both are null where the text is over the PRM's context. A PRM
trained on preference pairs has no meaningful scale: compare its logits within one state alone. A line of chats is
{"messages": [...]}, or {"prompt": [...], "completion": [...]} as in the datasets of `prm-gym label`; its last message
is the assistant's, the action to score.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from prm_gym.atomic import replacing
from prm_gym.errors import UserError
from prm_gym.prm.scorer import sigmoid
from prm_gym.store import parts, read_episodes
from prm_gym.store.parquet import read_columns
from prm_gym.types import Message, PromptTooLong

if TYPE_CHECKING:
    from prm_gym.prm.in_process import PRMScorer
    from prm_gym.prompts import Prompt

FORMATS = (".parquet", ".jsonl")
BLOCK = 1024  # chats scored and written together
Row = dict[str, Any]
_SCORES = [("q", pa.float64()), ("logit", pa.float64())]
_OF_EPISODES = [(name, pa.string()) for name in ("episode_id", "policy_id", "game_id")]
_OF_EPISODES += [("turn", pa.int32()), ("state_key", pa.string()), ("action", pa.string())]
_OF_CHATS = [("line", pa.int64())]
_CHAT_REMEDY = 'write {"messages": [{"role": ..., "content": ...}, ...]} a line, the last one the assistant\'s'


@dataclass(frozen=True)
class Source:
    """The rows to score: their number, their columns, and a function that iterates over (row, chat) from the start."""

    total: int
    schema: pa.Schema
    rows: Callable[[], Iterator[tuple[Row, list[Message]]]]


def of_episodes(folders: Sequence[Path], prompt: Prompt) -> Source:
    """Every executed action of the episodes in `folders`, as the response to `prompt`.

    Raises `UserError` as `store.parts`; `rows` as `store.read_episodes`.
    """

    def rows() -> Iterator[tuple[Row, list[Message]]]:
        for episode in read_episodes(*folders):
            known = {"episode_id": episode.episode_id, "policy_id": episode.policy_id, "game_id": episode.game_id}
            for turn in episode.turns[:-1]:
                place = {"turn": turn.turn, "state_key": turn.state_key.hex(), "action": turn.action}
                answer: Message = {"role": "assistant", "content": turn.response}
                yield {**known, **place}, [*prompt.messages(episode.state_at(turn.turn)), answer]

    total = 0
    for part in (part for folder in folders for part in parts(folder)):
        total += read_columns(part, ["reward"])["reward"].drop_null().length()
    return Source(total, pa.schema([*_OF_EPISODES, *_SCORES]), rows)


def of_chats(file: Path) -> Source:
    """Every line of a JSONL file. Raises `UserError` at once for the first line that is not a chat with an answer, or
    if there is none.
    """

    def rows() -> Iterator[tuple[Row, list[Message]]]:
        with file.open(encoding="utf-8", errors="replace") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield {"line": number}, _chat(line, f"{file}:{number}")

    total = sum(1 for _ in rows())
    if not total:
        raise UserError(file, "holds no chat", _CHAT_REMEDY)
    return Source(total, pa.schema([*_OF_CHATS, *_SCORES]), rows)


def score(
    source: Source, scorer: PRMScorer, out: Path, *, track: Callable[..., Iterable[Any]] = iter
) -> tuple[int, int]:
    """Write Q of every row of `source` to `out`, in the format of its suffix.

    `track` wraps the rows, for a progress bar. Returns the number of rows written, and of those over the PRM's context.
    Raises `UserError` for another suffix, or as the source.
    """
    if out.suffix not in FORMATS:
        raise UserError("out", f"'{out}' is no {' or '.join(FORMATS)} file", "name one")
    written = too_long = 0
    rows = iter(track(source.rows()))
    with replacing(out) as partial, _writer(partial, out.suffix, source.schema) as write:
        while block := list(islice(rows, BLOCK)):
            logits = _logits(scorer, [chat for _, chat in block])
            scored = [{"q": None if logit is None else sigmoid(logit), "logit": logit} for logit in logits]
            write([{**row, **q} for (row, _), q in zip(block, scored, strict=True)])
            written, too_long = written + len(block), too_long + logits.count(None)
    return written, too_long


def _logits(scorer: PRMScorer, chats: list[list[Message]]) -> list[float | None]:
    """logit Q of each chat, None for one over the PRM's context."""
    try:
        return [*scorer.message_logits(chats)]
    except PromptTooLong:
        return [None] if len(chats) == 1 else [each for chat in chats for each in _logits(scorer, [chat])]


@contextmanager
def _writer(path: Path, suffix: str, schema: pa.Schema) -> Iterator[Callable[[list[Row]], None]]:
    if suffix == ".parquet":
        with pq.ParquetWriter(path.absolute(), schema, compression="zstd") as table:
            yield lambda rows: table.write_table(pa.Table.from_pylist(rows, schema=schema))
    else:
        with path.open("w", encoding="utf-8") as file:
            yield lambda rows: file.writelines(json.dumps(row) + "\n" for row in rows)


def _chat(line: str, where: str) -> list[Message]:
    try:
        values = json.loads(line)
        chat = values["messages"] if "messages" in values else [*values["prompt"], *values["completion"]]
        chat = [{"role": message["role"], "content": message["content"]} for message in chat]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(where, f"is no chat ({type(error).__name__}: {error})", _CHAT_REMEDY) from None
    if not all(isinstance(text, str) for message in chat for text in message.values()):
        raise UserError(where, "has a message whose role or content is no text", _CHAT_REMEDY)
    if not chat or chat[-1]["role"] != "assistant":
        raise UserError(where, "does not end with an assistant's message", _CHAT_REMEDY)
    return chat

"""The texts of chosen turns: a stream of states and responses, one episode in memory at a time.

A label selects turns in SQL; `visits` then reads the Parquet parts once, in order, and joins their texts. Memory is
that of one batch of rows, whatever the size of the store.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from prm_gym.errors import UserError
from prm_gym.labels.sql_views import Rollouts
from prm_gym.prompts import Prompt
from prm_gym.store.parquet import check_rows, reading
from prm_gym.types import Message, State

_COLUMNS = ["episode_id", "game_id", "task", "observation", "admissible_commands", "response", "reason", "action"]


@dataclass(slots=True)
class Texts:
    """The texts of one episode, one entry per turn."""

    game_id: str
    task: str
    observations: list[str] = field(default_factory=list)
    actions: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    responses: list[str] = field(default_factory=list)
    admissible_commands: list[list[str] | None] = field(default_factory=list)

    def state(self, turn: int) -> State:
        """s_t: observations o_0..o_t, actions a_0..a_{t-1}."""
        commands = self.admissible_commands[turn]
        return State(
            game_id=self.game_id,
            task=self.task,
            observations=tuple(self.observations[: turn + 1]),
            actions=tuple(self.actions[:turn]),
            admissible_commands=None if commands is None else tuple(commands),
            reasons=tuple(self.reasons[:turn]),
        )

    def future(self, turn: int) -> list[tuple[str, str]]:
        """(a_k, o_{k+1}) from a_turn on."""
        return list(zip(self.actions[turn:-1], self.observations[turn + 1 :], strict=True))

    def completion(self, prompt: Prompt, turn: int) -> list[Message]:
        """a_t as the assistant's message."""
        return completion(prompt, self.reasons[turn], self.actions[turn], self.responses[turn])


def check_shows_reasons(prompt: Prompt, what: str) -> None:
    """Raise `UserError` if the responses of `prompt` show no reason, and so no `what`."""
    if "why" not in prompt.response("why", "act"):
        problem = f"the response of {prompt.name} shows no reason, so no {what}"
        raise UserError("prompt", problem, "name full, general or react")


def completion(prompt: Prompt, reason: str, action: str, response: str) -> list[Message]:
    """The assistant's message in the prompt's form; the raw response if it has no action."""
    return [{"role": "assistant", "content": prompt.response(reason, action) if action else response}]


def visits(source: Rollouts, sql: str, order: str = "episode, turn") -> Iterator[tuple[Texts, dict[str, Any]]]:
    """The rows of the query `sql`, which has columns `episode`, `turn` and others, each with its episode's texts.

    The episode's `split`, `game_id`, `iteration` and `policy_id` are added to the row. Rows are in the order of the
    store: by part, episode and turn. A query with several rows per turn names in `order` what tells them apart.
    """
    located = source.db.cursor().execute(
        f"""SELECT chosen.*, e.part, e.first_row, e.split, e.game_id, e.iteration, e.policy_id
        FROM ({sql}) AS chosen JOIN counted e USING (episode) ORDER BY {order}"""
    )
    texts: Texts | None = None
    place = (-1, -1)
    stream = _stream(source.files)
    names = [column[0] for column in located.description or ()]
    while batch := located.fetchmany(4096):
        for values in batch:
            row = dict(zip(names, values, strict=True))
            while place != (row["part"], row["first_row"]):
                place, texts = next(stream)
            assert texts is not None
            yield texts, row


def _stream(files: list[Path]) -> Iterator[tuple[tuple[int, int], Texts]]:
    """Consecutive rows of one episode_id, with the number of their part and of their first row."""
    for part, file in enumerate(files):
        with reading(file):
            yield from (((part, first_row), texts) for first_row, texts in _runs(file))


def _runs(file: Path) -> Iterator[tuple[int, Texts]]:
    texts = Texts("", "")
    episode_id: str | None = None
    first_row = row = 0
    # All columns are decoded, so their checksums also cover the ones that DuckDB read without verifying.
    for batch in pq.ParquetFile(file, page_checksum_verification=True).iter_batches(batch_size=2048):
        ids, games, tasks, observations, responses, reasons, actions = (
            batch[name].to_pylist() for name in _COLUMNS if name != "admissible_commands"
        )
        lists = batch["admissible_commands"].cast(pa.list_(pa.string()))  # nulls alone may have no type
        ends, commands, known = lists.offsets.to_pylist(), lists.values.to_pylist(), lists.is_valid().to_pylist()
        for i, this_id in enumerate(ids):
            if this_id != episode_id:
                if episode_id is not None:
                    yield first_row, texts
                episode_id, first_row, texts = this_id, row, Texts(games[i], tasks[i])
            texts.observations.append(observations[i])
            texts.actions.append(actions[i] or "")
            texts.reasons.append(reasons[i] or "")
            texts.responses.append(responses[i] or "")
            texts.admissible_commands.append(commands[ends[i] : ends[i + 1]] if known[i] else None)
            row += 1
    check_rows(file, row)
    if episode_id is not None:
        yield first_row, texts

"""Summaries of a run's episodes: policy, games, wins, inadmissible actions, speed.

A store is an evaluation (`iter<n>/eval/*/episodes`, or a folder written by `prm-gym evaluate`) or the rollouts of an
iteration. Branches are left out, since their first turns are their parents'.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from prm_gym import provenance
from prm_gym.errors import UserError, first_line
from prm_gym.policies.best_of_n import BestOf
from prm_gym.store import parts
from prm_gym.store.metrics import read_metrics
from prm_gym.store.parquet import PARTS, UNREADABLE, damaged, read_columns

_BEST_OF = re.compile(r"(best_of_[^()]+)\((.*)\)")
_COLUMNS = ["episode_id", "game_id", "split", "task_type", "policy_id", "stop_reason", "action_valid", "reward"]
_BRIEF = """
    SELECT episode_id, any_value(game_id) AS game, any_value(task_type) AS kind, any_value(policy_id) AS policy_id,
           any_value(split) AS split, bool_or(stop_reason = 'won') AS won, count(reward) AS actions,
           count(action_valid) FILTER (reward IS NOT NULL) AS judged,
           count(*) FILTER (reward IS NOT NULL AND NOT action_valid) AS inadmissible,
           coalesce(sum(response_tokens) FILTER (reward IS NOT NULL), 0)::BIGINT AS tokens
    FROM turns GROUP BY episode_id ORDER BY episode_id"""


@dataclass(frozen=True)
class Played:
    """A game played by a policy: its task type, the share of won episodes, and their mean number of actions."""

    kind: str
    won: float
    actions: float


@dataclass(frozen=True)
class Store:
    """A folder of episodes; `n` is the iteration of the folder iter<n> around it, `record` its provenance, if any."""

    folder: Path
    n: int | None
    record: dict[str, Any] | None
    episodes: list[dict[str, Any]]  # as _BRIEF says, by episode_id

    @property
    def who(self) -> tuple[str, str]:
        """Policy and mode, as in results.json."""
        return who(self.episodes[0]["policy_id"])

    @property
    def split(self) -> str:
        return str(self.episodes[0]["split"])

    @cached_property
    def games(self) -> dict[str, Played]:
        by_game: dict[str, list[dict[str, Any]]] = {}
        for episode in self.episodes:
            by_game.setdefault(episode["game"], []).append(episode)
        return {
            game: Played(
                of[0]["kind"], sum(e["won"] for e in of) / len(of), math.fsum(e["actions"] for e in of) / len(of)
            )
            for game, of in by_game.items()
        }

    def total(self, column: str) -> int:
        return sum(int(episode[column]) for episode in self.episodes)

    @cached_property
    def tokens_per_s(self) -> float | None:
        """Sampled tokens per second over all processes, by metrics.jsonl; None if unknown."""
        return _tokens_per_s(read_metrics(self.folder))


def who(policy_id: str) -> tuple[str, str]:
    """(`pi_1`, `best_of_4`) of `best_of_4(pi_1)`; the mode of a policy alone is `policy`."""
    match = _BEST_OF.fullmatch(policy_id)
    return (match[2], match[1]) if match else (policy_id, "policy")


def stores(run: Path, settings: set[str]) -> list[Store]:
    """The stores of a run folder, by iteration. Folders outside of iter<n> count if the digest of their settings is in
    `settings`. Raises `UserError` for any Parquet file of the run that cannot be read.
    """
    check_parquet(run)
    found = [*run.glob("iter*/eval/*/episodes"), *run.glob("iter*/rollouts")]
    evaluated = [path for path in run.iterdir() if path.is_dir() and _digest(path) in settings]
    with_episodes = (path for path in [*found, *evaluated] if any(path.glob("*.parquet")))
    return sorted((_store(path, run) for path in sorted(with_episodes)), key=_order)


def check_parquet(run: Path) -> None:
    """Raise `UserError` for the first unreadable Parquet file of the run, whether or not the report uses it."""
    for file in sorted({*run.glob("*/*.parquet"), *run.glob("*/data/*.parquet"), *run.glob("iter*/**/*.parquet")}):
        try:
            pq.read_metadata(file)
        except FileNotFoundError:  # merged into another part since
            continue
        except UNREADABLE as error:
            problem = f"is no readable Parquet file ({first_line(error)})"
            if file.name.startswith(PARTS):
                raise damaged(file, problem) from None
            raise UserError(file, problem, "remove it and run the stage that wrote it again") from None


def _store(folder: Path, run: Path) -> Store:
    place = folder.relative_to(run).parts[0]
    tables = [read_columns(part, [*_COLUMNS, "response_tokens"]) for part in parts(folder)]
    connection = duckdb.connect()
    connection.register("turns", pa.concat_tables(tables))
    found = connection.sql(_BRIEF)
    rows = [dict(zip(found.columns, row, strict=True)) for row in found.fetchall()]
    return Store(folder, int(place[4:]) if place[4:].isdecimal() else None, provenance.read(folder), rows)


def _order(store: Store) -> tuple[Any, ...]:
    """Sort key: by iteration; within one, rollouts, then policies alone, then best-of-N by N."""
    policy, mode = store.who
    choice = BestOf.of_mode(mode)
    return store.n or 0, store.folder.name != "rollouts", mode != "policy", policy, choice.n if choice else 0, mode


def _digest(folder: Path) -> str | None:
    record = provenance.read(folder)
    return None if record is None else provenance.digest(record["settings"])


def _tokens_per_s(lines: list[dict[str, Any]]) -> float | None:
    """Each process of a run writes lines with growing "seconds"; the last of them has its totals."""
    totals: list[dict[str, float]] = []
    last: dict[str, dict[str, float]] = {}  # by share
    for line in lines:
        try:
            new = {key: float(line[key]) for key in ("time", "seconds", "response_tokens")}
        except (ValueError, KeyError, TypeError):
            continue
        before = last.get(share := str(line["share"]))
        if before and before["seconds"] <= new["seconds"] and new["time"] - new["seconds"] <= before["time"]:
            before.update(new)
        else:
            totals.append(new)
            last[share] = new
    seconds = _covered([(of["time"] - of["seconds"], of["time"]) for of in totals])
    tokens = sum(of["response_tokens"] for of in totals)
    return tokens / seconds if tokens and seconds else None


def _covered(spans: list[tuple[float, float]]) -> float:
    """The length of the union of spans of time."""
    covered, end = 0.0, -math.inf
    for start, stop in sorted(spans):
        covered += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return covered

"""The episodes of some folders as SQL views, with the rules that all labels share.

`Rollouts` opens DuckDB over the Parquet parts. The rules:

- An episode counts if it is whole (turns 0..n, rewards on all but the last) and did not fail: a failed one
  (policy_error, env_error) is not a sample of the MDP. Time-outs count: no reward follows them.
- An episode that is in two parts or folders (same episode_id, policy, iteration and texts) counts once. A policy under
  two settings, such as temperatures, gives episodes of the same ids; all of them count.
- A folder's weight is the share of its episodes used. They are drawn by a seeded hash of the episode, so weights reduce
  the sample and never bias a target.
- The *visits* of a branch are the turns from `branch_turn` on; the turns before are its parent's. Its action at
  `branch_turn` was chosen, so it is not a sample of pi (`on_policy` is false).
- A seeded hash of its game_id puts every game in `train` or `test`: no state is in both, and a game stays in its split
  when others are added.

Left out: texts. The views have the columns that targets are computed from; `turn_texts` reads the texts.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from prm_gym import provenance
from prm_gym.envs.games import TASK_TYPES
from prm_gym.errors import UserError, check_range, of_system
from prm_gym.prompts import load
from prm_gym.provenance.fingerprints import of_prompt
from prm_gym.store import parts
from prm_gym.store.parquet import scan
from prm_gym.store.writer_lock import being_written
from prm_gym.types import STATE_KEY_BYTES

MEGABYTES, MEGABYTES_PER_THREAD = 1000, 100  # memory limit of DuckDB; the rest spills to the work folder

# One line per episode; `problem` says why it does not count. Reads $seed and the tables `parts` and `rows`.
_EPISODES = """
CREATE TABLE episodes AS
WITH found AS (
    SELECT part, episode_id, min(row) AS first_row, count(*) - 1 AS length,
           min(game_id) AS game_id, min(task_type) AS task_type, min(policy_id) AS policy_id,
           min(iteration) AS iteration, min(parent_id) IS NOT NULL AS branch,
           CASE WHEN min(parent_id) IS NULL THEN 0 ELSE coalesce(min(branch_turn), 0) END AS branch_turn,
           arg_max(stop_reason, turn) FILTER (stop_reason <> '') AS stop_reason, arg_max(state_key, turn) AS texts,
           -- the rows are together and in order, and only the last has no reward
           min(turn) = 0 AND max(turn) = count(*) - 1 AND min(row - turn) = max(row - turn)
               AND count(reward) = count(*) - 1 AND count(game_id) = count(*)
               AND coalesce(max(turn) FILTER (reward IS NOT NULL), -1) = max(turn) - 1 AS whole
    FROM rows GROUP BY part, episode_id
), numbered AS (
    SELECT *, row_number() OVER (
               PARTITION BY role, episode_id, policy_id, iteration, texts, settings
               ORDER BY whole DESC, weight DESC, part) AS copy,
           md5_number_lower(concat_ws(':', $seed::VARCHAR, episode_id, policy_id, iteration::VARCHAR)) AS draw
    FROM found JOIN parts USING (part)
)
SELECT row_number() OVER (ORDER BY part, first_row) AS episode, place(part, first_row) AS start,
       row_number() OVER (ORDER BY draw, role, part, first_row) AS draw_rank,  -- a seeded order; labels keep the lowest
       * EXCLUDE (draw, whole, copy, file, texts, settings),
       CASE WHEN NOT whole OR stop_reason IS NULL THEN 'without an end'
            WHEN copy > 1 THEN 'duplicate'
            WHEN stop_reason IN ('policy_error', 'env_error') THEN 'failed'
            WHEN stop_reason NOT IN ('won', 'lost', 'step_limit', 'prompt_too_long') THEN 'unknown stop_reason'
            WHEN length > 0 AND branch_turn >= length THEN 'branch without an action'
            WHEN len($task_types) > 0 AND NOT list_contains($task_types, task_type) THEN 'other task type'
            WHEN md5_number_lower('weight:' || draw::VARCHAR) >= weight * 18446744073709551616 THEN 'thinned by weight'
       END AS problem
FROM numbered
"""

# One line per turn of the episodes that count; the last has the final observation alone, and no reward.
_TURNS = """
SELECT {more}e.episode, e.draw_rank, e.role, e.policy_id, e.split, e.branch, e.stop_reason = 'won' AS won,
       r.turn, r.state_key, r.action, r.reward,
       coalesce(r.action_valid, true) AS action_valid,                                   -- unknown counts as valid
       r.reward IS NOT NULL AND r.turn >= e.branch_turn AS visit,                        -- a_t was chosen at s_t
       r.reward IS NOT NULL AND r.turn >= e.branch_turn + e.branch::INT AS on_policy,    -- and a_t ~ pi(s_t)
       e.stop_reason IN ('won', 'lost') AND r.turn = e.length - 1 AS terminated,         -- s_{{t+1}} is terminal
       r.turn = e.length AS final                                                        -- o_T alone, no action
FROM rows r JOIN {table} e ON e.start = r.start AND r.turn BETWEEN 0 AND e.length
"""


def turns_of(table: str, *more: str) -> str:
    """The query for the turns of the episodes in `table`: `counted`, or its lines with the columns `more`."""
    return _TURNS.format(table=table, more="".join(f"e.{column}, " for column in more))


_COLUMNS = {
    "episode_id": "VARCHAR",
    "game_id": "VARCHAR",
    "task_type": "VARCHAR",
    "policy_id": "VARCHAR",
    "iteration": "INTEGER",
    "stop_reason": "VARCHAR",
    "parent_id": "VARCHAR",
    "branch_turn": "INTEGER",
    "turn": "INTEGER",
    "action_valid": "BOOLEAN",
    "admissible_commands": "VARCHAR[]",
    "reward": "DOUBLE",
    "reason": "VARCHAR",
    "response": "VARCHAR",
    "state_key": "BLOB",
}


class Rollouts:
    """The views `turns`, `episodes` and `rows` over the folders, on `db`. A context manager; DuckDB spills to `work`.

    Parameters
    ----------
    policy, expert
        Folders of episodes by role; a role is a column of the views.
    weights
        One share in (0, 1] for each policy folder.
    task_types
        Only these; all if empty. One that no episode has, and that is none of ALFWorld's, is an error.
    seed
        Of every draw: the weights, the split by game, the order `draw_rank`.
    train_share
        The expected share of games in `train`.

    Raises
    ------
    UserError
        A folder that is missing, empty, given twice, being written, or has an unusable part; a weight or share out of
        range; no episode to label.
    """

    def __init__(
        self,
        policy: Sequence[Path],
        work: Path,
        *,
        expert: Sequence[Path] = (),
        weights: Sequence[float] | None = None,
        task_types: Sequence[str] | None = None,
        seed: int = 0,
        train_share: float = 0.85,
    ) -> None:
        check_range("train_share", train_share, above=0, most=1)
        shares = list(weights) if weights else [1.0] * len(policy)
        if len(shares) != len(policy):
            raise UserError("weights", f"{len(shares)} weights for {len(policy)} folders", "give one for each folder")
        for share in shares:
            check_range("weights", share, above=0, most=1)
        roles = [(folder, "policy", share) for folder, share in zip(policy, shares, strict=True)]
        parts_given = _list_parts([*roles, *((folder, "expert", 1.0) for folder in expert)])
        self.files = [file for file, _, _ in parts_given]
        self._work = work
        self.db = _connect(work)
        try:
            memory = MEGABYTES + MEGABYTES_PER_THREAD * (os.cpu_count() or 1)
            self.db.execute(f"SET memory_limit = '{memory}MB'; SET preserve_insertion_order = false")
            self.db.execute("SET parquet_metadata_cache = true")
            self.db.execute("SET enable_progress_bar = false")
            self.db.execute("SET temp_directory = ?", [str(work / "spill")])
            self.db.execute("CREATE MACRO place(part, row) AS (part::BIGINT << 40) + row")
            self.db.execute(
                "CREATE TABLE parts (part INTEGER, file VARCHAR, role VARCHAR, weight DOUBLE, settings VARCHAR)"
            )
            settings = {file.parent: provenance.identity(file.parent)["fingerprint"] for file in self.files}
            for part, (file, role, weight) in enumerate(parts_given):
                row = [part, str(file), role, weight, settings[file.parent]]
                self.db.execute("INSERT INTO parts VALUES (?, ?, ?, ?, ?)", row)
            self._open_rows()
            self.db.execute(_EPISODES, {"seed": seed, "task_types": list(task_types or [])})
            self._check_task_types(task_types or ())
            self._split_games(seed, train_share)
            self.db.execute(f"CREATE VIEW turns AS {turns_of('counted')}")
        except BaseException as error:
            self._close(error)
            raise

    def _check_task_types(self, asked: Sequence[str]) -> None:
        there = {kind for (kind,) in self.db.execute("SELECT DISTINCT task_type FROM episodes").fetchall()}
        for kind in asked:
            if kind not in there and kind not in TASK_TYPES:  # few episodes may lack one of ALFWorld's
                raise UserError("task_types", f"no episode is of {kind!r}", f"say {', '.join(sorted(there))}")

    def _open_rows(self) -> None:
        schemas = [pq.read_schema(file) for file in self.files]
        there: set[str] = set().union(*(schema.names for schema in schemas))
        columns = ", ".join(
            f"CAST({name if name in there else 'NULL'} AS {kind}) AS {name}" for name, kind in _COLUMNS.items()
        )
        self.db.execute(
            f"""CREATE VIEW stored AS SELECT part, file_row_number AS row, place(part, file_row_number - turn) AS start,
                {columns}, coalesce(r.action, '') AS action
            FROM read_parquet(
                {file_list(self.files)}, filename = true, file_row_number = true, union_by_name = true
            ) AS r JOIN parts ON r.filename = parts.file"""
        )
        self._check_keys(schemas)
        keyless = self.db.execute("SELECT DISTINCT part FROM stored WHERE state_key IS NULL").fetchall()
        if not keyless:
            self.db.execute("CREATE VIEW rows AS FROM stored")
            return
        self.db.execute("CREATE TABLE computed (part INTEGER, row BIGINT, state_key BLOB)")
        for (part,) in keyless:
            keys = [turn.state_key for episode in scan(self.files[part]) for turn in episode.turns]
            self.db.register("keys", pa.table({"row": range(len(keys)), "state_key": pa.array(keys, pa.binary())}))
            self.db.execute("INSERT INTO computed SELECT ?, row, state_key FROM keys", [part])
        self.db.execute(
            """CREATE VIEW rows AS SELECT s.* REPLACE (coalesce(s.state_key, c.state_key) AS state_key)
            FROM stored s LEFT JOIN computed c ON c.part = s.part AND c.row = s.row"""
        )

    def _check_keys(self, schemas: Sequence[pa.Schema]) -> None:
        """A state_key is grouped as a number of 128 bits. Parts of another writer may hold bytes of any length."""
        fixed = pa.binary(STATE_KEY_BYTES)
        loose = [
            part
            for part, schema in enumerate(schemas)
            if "state_key" in schema.names and schema.field("state_key").type != fixed
        ]
        if not loose:
            return
        found = self.db.execute(
            """SELECT part, octet_length(state_key) AS bytes FROM stored
            WHERE list_contains($loose, part) AND bytes <> $expected ORDER BY part, row LIMIT 1""",
            {"loose": loose, "expected": STATE_KEY_BYTES},
        ).fetchone()
        if found:
            part, size = found
            raise UserError(
                self.files[part],
                f"has keys of {size} bytes, not {STATE_KEY_BYTES}",
                "write those of `prm_gym.types.state_key`, or leave the column out: they are computed",
                field="state_key",
            )

    def _split_games(self, seed: int, train_share: float) -> None:
        found = self.db.execute("SELECT DISTINCT game_id FROM episodes WHERE problem IS NULL").fetchall()
        if not found:
            reasons = ", ".join(f"{n} {problem}" for problem, n in self.skipped().items())
            raise UserError(self.files[0].parent, f"no episode to label ({reasons})", "check folders and filters")
        sides = divide([game for (game,) in found], seed, train_share)
        self.db.execute(
            "CREATE TABLE games AS SELECT unnest($games::VARCHAR[]) AS game_id, unnest($splits::VARCHAR[]) AS split",
            {"games": list(sides), "splits": list(sides.values())},
        )
        self.db.execute("CREATE VIEW counted AS FROM episodes JOIN games USING (game_id) WHERE problem IS NULL")

    def skipped(self) -> dict[str, int]:
        """How many episodes do not count, by reason."""
        sql = "SELECT problem, count(*) FROM episodes WHERE problem IS NOT NULL GROUP BY 1 ORDER BY 1"
        return dict(self.db.execute(sql).fetchall())

    def counts(self) -> dict[str, int]:
        """Episodes, wins and games that count."""
        names = ("episodes", "won", "branches", "games")
        sql = """SELECT count(*), count(*) FILTER (stop_reason = 'won'), count(*) FILTER (branch),
                        count(DISTINCT game_id) FROM episodes WHERE problem IS NULL"""
        return dict(zip(names, self.one(sql), strict=True))

    def one(self, sql: str, *parameters: Any) -> tuple[Any, ...]:
        """The single row of a query."""
        row = self.db.execute(sql, list(parameters)).fetchone()
        assert row is not None
        return row

    def __enter__(self) -> Rollouts:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close(error)

    def _close(self, error: BaseException | None) -> None:
        self.db.close()
        if isinstance(error, duckdb.Error) and (told := of_system(error, self._work)):
            for file in self.files:  # find the damaged file: DuckDB does not name it
                for _ in scan(file):
                    pass
            raise told from None


def _connect(work: Path) -> duckdb.DuckDBPyConnection:
    try:
        return duckdb.connect()
    except duckdb.Error as error:
        raise of_system(error, work) or error from None


def divide(games: Sequence[str], seed: int, train_share: float) -> dict[str, str]:
    """`train` or `test` for each game, by a seeded hash of its id alone.

    If a split of a small set would be empty, the game nearest to the border is moved there (not with a single game or a
    share of 1: then all are `train`).
    """

    def draw(game: str) -> float:
        return int.from_bytes(blake2b(f"{seed}:{game}".encode(), digest_size=8).digest(), "big") / 2**64

    order = sorted(games, key=lambda game: (draw(game), game))
    border = sum(draw(game) < train_share for game in order)
    if len(order) > 1 and train_share < 1:
        border = min(max(border, 1), len(order) - 1)
    elif len(order) == 1:
        border = 1
    return {game: "train" if place < border else "test" for place, game in enumerate(order)}


def _list_parts(folders: Sequence[tuple[Path, str, float]]) -> list[tuple[Path, str, float]]:
    if not any(role == "policy" for _, role, _ in folders):
        raise UserError("rollouts", "no folder given", "name at least one folder that `prm-gym rollout` wrote")
    seen: set[Path] = set()
    found: list[tuple[Path, str, float]] = []
    for name, role, weight in folders:
        folder = Path(name).resolve()
        if folder in seen:
            raise UserError(name, "is given twice", "name each folder once")
        seen.add(folder)
        if being_written(folder):
            raise UserError(name, "is being written", "run again when its writer has finished")
        found.extend((file, role, weight) for file in parts(folder))
    return found


def prompt_of(folders: Sequence[Path], asked: str | None) -> str:
    """The prompt to render with: `asked`, else the one that the episodes were collected with, else `full`, or `general`
    if they are of another environment than ALFWorld.

    Raises `UserError` if there are several, or its file has changed since.
    """
    if asked is not None:
        return asked
    found: dict[str, str] = {}
    others = False  # environments other than ALFWorld
    for folder in folders:
        record = provenance.read(Path(folder))
        prompt = provenance.prompt_of(record["settings"]) if record else None
        others |= record is not None and "env" in record["settings"]
        if prompt is not None:
            found[prompt["fingerprint"]] = prompt["name"]
    if not found:
        return "general" if others else "full"
    remedy = "say which one with --prompt"
    if len(found) > 1:
        raise UserError("rollouts", f"were collected with several prompts ({', '.join(found.values())})", remedy)
    [(fingerprint, name)] = found.items()
    if of_prompt(load(name))["fingerprint"] != fingerprint:
        raise UserError(name, "has changed since the episodes were collected with it", remedy)
    return name


def file_list(files: Sequence[Path]) -> str:
    """The files as an SQL list, with glob characters and quotes escaped."""
    return "[" + ", ".join("'" + glob.escape(str(file)).replace("'", "''") + "'" for file in files) + "]"

"""Statistics of a label that show whether a PRM can learn from it."""

from __future__ import annotations

from typing import Any

from prm_gym.labels.sql_views import Rollouts


def of_targets(source: Rollouts, table: str) -> dict[str, Any]:
    """For a table with `target` in [0, 1] and `count`: a histogram of targets, and one of visits per row."""
    targets = source.db.execute(
        f"SELECT least(floor(target * 10), 9)::INT AS bin, count(*) FROM {table} GROUP BY bin ORDER BY bin"
    ).fetchall()
    visits = source.db.execute(
        f"SELECT (1 << floor(log2(count))::INT) AS least, count(*) FROM {table} GROUP BY least ORDER BY least"
    ).fetchall()
    mean, total = source.one(f"SELECT avg(target), sum(count)::BIGINT FROM {table}")
    return {
        "targets": {f"{low / 10:.1f}-{(low + 1) / 10:.1f}": n for low, n in targets},
        "mean target": mean,
        "visits": total,
        "rows by visits": {f"{low}-{2 * low - 1}" if low > 1 else "1": n for low, n in visits},
    }


def of_states(source: Rollouts, table: str) -> dict[str, Any]:
    """For a table with a row per (`state`, action): the states, and those with two or more actions to rank."""
    states, compared = source.one(
        f"SELECT count(*), count(*) FILTER (n > 1) FROM (SELECT count(*) AS n FROM {table} GROUP BY state)"
    )
    return {"states": states, "states with two or more actions": compared}

"""The figures that a label prints: what tells beforehand whether a PRM can learn from it."""

from __future__ import annotations

from typing import Any

from prm_gym.labels.rollouts import Rollouts


def of_targets(source: Rollouts, table: str) -> dict[str, Any]:
    """Of a table with `target` in [0, 1] and `count`: a histogram in ten bins, visits, rows that rest on one visit."""
    bins = source.db.execute(
        f"SELECT least(floor(target * 10), 9)::INT AS bin, count(*) FROM {table} GROUP BY 1 ORDER BY 1"
    ).fetchall()
    mean, visits, most, once = source.one(
        f"SELECT avg(target), sum(count)::BIGINT, max(count), count(*) FILTER (count = 1) FROM {table}"
    )
    return {
        "targets": {f"{low / 10:.1f}-{(low + 1) / 10:.1f}": n for low, n in bins},
        "mean target": mean,
        "visits": visits,
        "most visits of a row": most,
        "rows with one visit": once,
    }


def of_states(source: Rollouts, table: str) -> dict[str, Any]:
    """Of a table with a row per (s, a): the states, and those with two or more actions, which a ranking lives on."""
    states, compared = source.one(
        f"SELECT count(*), count(*) FILTER (n > 1) FROM (SELECT count(*) AS n FROM {table} GROUP BY state_key)"
    )
    return {"states": states, "states with two or more actions": compared}

"""Prompts for Stage 3 (paper, section 4.1): visited states, with Reset-50-50 and Steered Exploration.

A row per distinct state in which an action was chosen: `prompt`; `exploration_prompt`, the same with the request to
explore, to sample from and never to train on; and `source`, `policy` or `expert`. With expert episodes, a given
fraction of the rows are states of the successful ones. A state that both visited counts as the expert's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from prm_gym.errors import UserError, check_range
from prm_gym.labels.dataset import MESSAGES, SPLITS, Dataset, LabelReport
from prm_gym.labels.sql_views import Rollouts, prompt_of
from prm_gym.labels.turn_texts import visits
from prm_gym.prompts import load

COLUMNS = [("prompt", MESSAGES), ("exploration_prompt", MESSAGES), ("source", pa.string())]

# rho(s): the distinct states with an action, in a seeded order within each split and source.
_STATES = """
CREATE TABLE states AS
WITH visited AS (
    SELECT state_key, min(split) AS split, min(turn) AS turn,
           CASE WHEN bool_or(role = 'expert') THEN 'expert' ELSE 'policy' END AS source,
           coalesce(min(draw_rank) FILTER (role = 'expert'), min(draw_rank)) AS draw_rank
    FROM turns WHERE visit AND (role = 'policy' OR won) GROUP BY state_key
)
SELECT episode, v.* EXCLUDE (draw_rank),
       row_number() OVER (PARTITION BY v.split, source ORDER BY md5_number_lower($seed || hex(state_key)), state_key)
           AS place
FROM visited v JOIN episodes USING (draw_rank)
"""


def label(
    rollouts: Sequence[Path],
    out: Path,
    *,
    expert: Sequence[Path] = (),
    expert_fraction: float = 0.5,
    size: int | None = None,
    prompt: str | None = None,
    task_types: Sequence[str] | None = None,
    weights: Sequence[float] | None = None,
    train_share: float = 0.85,
    seed: int = 0,
) -> LabelReport:
    """Write the prompts.

    Parameters
    ----------
    expert
        Folders of expert episodes (Reset-50-50); none for states of the policy alone.
    expert_fraction
        The share of rows from the expert in each split. If one source is short of states, both are cut.
    size
        At most this many rows, over both splits; all if None.

    The others, and the errors, are as in `monte_carlo.label`.
    """
    prompt = prompt_of(rollouts, prompt)
    settings = {name: value for name, value in locals().items() if expert or name != "expert_fraction"}
    check_range("expert_fraction", expert_fraction, above=0, most=1)
    if size is not None:
        check_range("size", size, least=1, most=2**40)
    template = load(prompt)
    with (
        Dataset(out, "prompts", COLUMNS, settings) as dataset,
        Rollouts(
            rollouts,
            dataset.work,
            expert=expert,
            weights=weights,
            task_types=task_types,
            seed=seed,
            train_share=train_share,
        ) as source,
    ):
        source.db.execute(_STATES, {"seed": f"prompts:{seed}:"})
        found = source.db.execute("SELECT split, source, count(*) FROM states GROUP BY ALL").fetchall()
        there = {(split, role): n for split, role, n in found}
        if expert and not any(role == "expert" for _, role in there):
            raise UserError(expert[0], "holds no successful episode", "name a folder of expert episodes")
        fraction = expert_fraction if expert else 0.0
        chosen = {
            (split, role): n
            for split in SPLITS
            for role, n in quotas(
                there.get((split, "policy"), 0), there.get((split, "expert"), 0), fraction, _share(there, split, size)
            ).items()
        }
        keep = " OR ".join(
            f"(split = '{split}' AND source = '{role}' AND place <= {n})" for (split, role), n in chosen.items()
        )
        for texts, row in visits(source, f"SELECT episode, turn, state_key, source FROM states WHERE {keep}"):
            state = texts.state(row["turn"])
            dataset.add(
                row,
                prompt=template.messages(state),
                exploration_prompt=template.exploration_messages(state),
                source=row["source"],
            )
        states = {role: sum(n for (_, r), n in there.items() if r == role) for role in ("policy", "expert")}
        rows = {role: sum(n for (_, r), n in chosen.items() if r == role) for role in ("policy", "expert")}
        facts: dict[str, Any] = {"distinct states": states, "rows by source": rows}
        most = sum(
            sum(quotas(there.get((split, "policy"), 0), there.get((split, "expert"), 0), fraction, math.inf).values())
            for split in SPLITS
        )
        if size is not None and size > most:
            facts["rows wanted"] = f"{size:,}, more than the {most:,} that these states give"
        return dataset.finish(source, facts)


def quotas(policy: int, expert: int, fraction: float, size: float) -> dict[str, int]:
    """The largest numbers of policy and expert rows, at most `size` in total, of which `fraction` are the expert's."""
    most = [size]
    if fraction < 1:
        most.append(policy / (1 - fraction))
    if fraction > 0:
        most.append(expert / fraction)
    total = int(min(most))
    from_expert = min(round(total * fraction), expert)
    return {"expert": from_expert, "policy": min(total - from_expert, policy)}


def _share(there: dict[tuple[str, str], int], split: str, size: int | None) -> float:
    """The split's part of `size`, in proportion to its states."""
    if size is None:
        return float("inf")
    return size * sum(n for (s, _), n in there.items() if s == split) / max(sum(there.values()), 1)

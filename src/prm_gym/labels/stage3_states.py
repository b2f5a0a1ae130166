"""The states that Stage 3 samples at (paper, section 4.1): rho(s), with Reset-50-50.

A state that the policy and the expert both visited counts as the expert's. Of expert episodes, successful ones count.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prm_gym.errors import UserError, check_range
from prm_gym.labels.dataset import SPLITS
from prm_gym.labels.sql_views import Rollouts

# rho(s): the distinct states with an action, in a seeded order within each split and source.
_STATES = """
CREATE TABLE states AS
WITH visited AS (
    SELECT state_key, min(split) AS split, min(turn) AS turn,
           CASE WHEN bool_or(role = 'expert') THEN 'expert' ELSE 'policy' END AS source,
           coalesce(min(draw_rank) FILTER (role = 'expert'), min(draw_rank) FILTER (won AND $prefer_won),
                    min(draw_rank)) AS draw_rank,
           bool_or(won) AS won
    FROM turns WHERE visit AND (role = 'policy' OR won) GROUP BY state_key
)
SELECT episode, v.* EXCLUDE (draw_rank),
       row_number() OVER (PARTITION BY v.split, source ORDER BY md5_number_lower($seed || hex(state_key)), state_key)
           AS place
FROM visited v JOIN episodes USING (draw_rank)
"""


def stage3_states(
    source: Rollouts,
    expert: Sequence[Path],
    expert_fraction: float,
    size: int | None,
    seed: int,
    *,
    prefer_won: bool = False,
) -> tuple[str, dict[str, Any]]:
    """A query for the chosen states (episode, turn, state_key, source, won), and facts for the report.

    `won`: a won episode visited the state; with `prefer_won` it is the `episode`. `expert_fraction` of the states in
    each split are of the folders `expert`, at most `size` are chosen in all. Raises
    `UserError` if `expert` are folders without a successful episode.
    """
    source.db.execute(_STATES, {"seed": f"prompts:{seed}:", "prefer_won": prefer_won})
    found = source.db.execute("SELECT split, source, count(*) FROM states GROUP BY ALL").fetchall()
    there = {(split, role): n for split, role, n in found}
    if expert and not any(role == "expert" for _, role in there):
        raise UserError(expert[0], "holds no successful episode", "name a folder of expert episodes")
    fraction = expert_fraction if expert else 0.0

    def chosen(split: str, size: float) -> dict[str, int]:
        return quotas(there.get((split, "policy"), 0), there.get((split, "expert"), 0), fraction, size)

    numbers = {split: chosen(split, of) for split, of in _sizes(there, size).items()}
    keep = " OR ".join(
        f"(split = '{split}' AND source = '{role}' AND place <= {n})"
        for split, of in numbers.items()
        for role, n in of.items()
    )
    roles = ("policy", "expert")
    facts: dict[str, Any] = {
        "distinct states": {role: sum(n for (_, r), n in there.items() if r == role) for role in roles},
        "rows by source": {role: sum(of[role] for of in numbers.values()) for role in roles},
    }
    most = sum(sum(chosen(split, math.inf).values()) for split in SPLITS)
    if size is not None and size > most:
        facts["rows wanted"] = f"{size:,}, more than the {most:,} that these states give"
    return f"SELECT episode, turn, state_key, source, won FROM states WHERE {keep}", facts


def check_choice(expert_fraction: float, size: int | None) -> None:
    """Raise `UserError` for arguments of `stage3_states` that are out of range."""
    check_range("expert_fraction", expert_fraction, above=0, most=1)
    if size is not None:
        check_range("size", size, least=1, most=2**40)


def quotas(policy: int, expert: int, fraction: float, size: float) -> dict[str, int]:
    """The largest numbers of policy and expert rows, at most `size` in total, of which `fraction` are the expert's."""
    most = [size]
    if fraction < 1:
        most.append(policy / (1 - fraction))
    if fraction > 0:
        most.append(expert / fraction)
    total = int(min(most) + 1e-9)  # a quotient may be just below a whole number
    from_expert = min(round(total * fraction), expert)
    return {"expert": from_expert, "policy": min(total - from_expert, policy)}


def _sizes(there: dict[tuple[str, str], int], size: int | None) -> dict[str, float]:
    """The splits' parts of `size`, in proportion to their states; `train` has what `test` leaves."""
    if size is None:
        return dict.fromkeys(SPLITS, math.inf)
    test = int(size * sum(n for (split, _), n in there.items() if split == "test") / max(sum(there.values()), 1))
    return {"train": size - test, "test": test}

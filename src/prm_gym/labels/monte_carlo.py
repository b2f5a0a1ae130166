"""Monte Carlo targets of AgentPRM (paper, section 2.2, Eq. 1): Q of every state and action that was visited.

A row per (s, a): `prompt` renders s, `completion` renders a, `target` is the mean return over all visits, `count`
their number. The rewards of an episode sum to at most 1, so targets are in [0, 1]; a store with other returns is
refused. The reason in `completion` is that of one visit: the one whose episode has the lowest seeded draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from prm_gym.envs.contract import TOLERANCE
from prm_gym.errors import UserError, check_range
from prm_gym.labels.dataset import MESSAGES, Dataset, LabelReport
from prm_gym.labels.folders import one_or_more_folders
from prm_gym.labels.sql_views import Rollouts, prompt_of, turns_of
from prm_gym.labels.statistics import of_states, of_targets
from prm_gym.labels.turn_texts import visits
from prm_gym.prompts import load

COLUMNS = [("prompt", MESSAGES), ("completion", MESSAGES), ("target", pa.float64()), ("count", pa.int64())]

# G_t = sum_{k >= t} gamma^(k-t) r_k, the inner sum of Eq. 1, at the turns with a reward, which are few.
_GAINS = """
CREATE TABLE gains AS
SELECT episode, turn, reward,
       list_sum([pow(GAMMA, k.turn - turn) * k.reward FOR k IN list({turn: turn, reward: reward}) OVER later]) AS g
FROM turns WHERE reward <> 0
WINDOW later AS (PARTITION BY episode ORDER BY turn ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING)
"""
# From there back to the reward before it, only the discount changes: G_t = gamma^(u-t) G_u in the segment
# previous < t <= u. After the last reward G is 0.
_SEGMENTS = """
CREATE TABLE segments AS
SELECT e.*, u, g, lag(u, 1, -1) OVER (PARTITION BY episode ORDER BY u) AS previous
FROM (SELECT episode, turn AS u, g FROM gains UNION ALL SELECT episode, length, 0 FROM counted)
JOIN counted e USING (episode)
"""
_RETURNS = f"""
CREATE VIEW returns AS
SELECT episode, draw_rank, turn, state_key, action, action_valid, on_policy, least(pow(GAMMA, u - turn) * g, 1) AS g
FROM ({turns_of("segments", "u", "g", "previous")}) WHERE visit AND turn > previous AND turn <= u
"""

# Eq. 1: Q(s, a) = the mean of G_t over all visits of (s, a). Decimals are summed exactly, so the order in which threads
# add does not matter. `state` is the state_key as a number, which is grouped faster than a BLOB.
_MEANS = """
CREATE TABLE means AS
SELECT state_key::UUID AS state, action, avg(g::DECIMAL(18, 15)) AS target, count(*) AS count,
       min(turn) AS turn,  -- a state has one
       min(draw_rank) AS draw_rank  -- of the episode whose text is kept
FROM returns GROUP BY state, action
HAVING count(*) >= $min_visits AND (bool_or(action_valid) OR NOT $valid_only)
"""
_ACTION_VALUES = """
CREATE VIEW action_values AS
SELECT episode, state::BLOB AS state_key, m.* EXCLUDE (draw_rank) FROM means m JOIN episodes USING (draw_rank)
"""


@one_or_more_folders
def label(
    rollouts: Sequence[Path],
    out: Path,
    *,
    prompt: str | None = None,
    gamma: float = 0.95,
    min_visits: int = 1,
    valid_only: bool = False,
    task_types: Sequence[str] | None = None,
    weights: Sequence[float] | None = None,
    train_share: float = 0.85,
    seed: int = 0,
) -> LabelReport:
    """Write the dataset of Eq. 1.

    Parameters
    ----------
    rollouts
        A folder of episodes, or several. Several policies together give the Q of their mixture.
    out
        The dataset's folder.
    prompt
        A prompt template by name or path; by default the one of the rollouts' policies, or `full` if they have none.
    gamma
        The discount, in [0, 1].
    min_visits, valid_only
        Leave out (s, a) with fewer visits, or whose action was not admissible. The returns do not change.
    task_types, weights, train_share, seed
        See `sql_views.Rollouts`.

    Raises
    ------
    UserError
        As `Rollouts` and `Dataset`; an option out of range; a return outside [0, 1].
    """
    prompt = prompt_of(rollouts, prompt)
    settings = locals().copy()
    template = load(prompt)
    with (
        Dataset(out, "monte_carlo", COLUMNS, settings) as dataset,
        Rollouts(
            rollouts, dataset.work, weights=weights, task_types=task_types, seed=seed, train_share=train_share
        ) as source,
    ):
        action_values(source, gamma, min_visits=min_visits, valid_only=valid_only)
        for texts, row in visits(source, "SELECT * EXCLUDE (state) FROM action_values"):
            dataset.add(
                row,
                prompt=template.messages(texts.state(row["turn"])),
                completion=texts.completion(template, row["turn"]),
                target=row["target"],
                count=row["count"],
            )
        return dataset.finish(source, {**of_targets(source, "action_values"), **of_states(source, "action_values")})


def returns(source: Rollouts, gamma: float) -> None:
    """Create the view `returns`: `g` = G_t of every visit.

    Raises
    ------
    UserError
        gamma, a reward, or the sum of an episode's rewards is outside [0, 1].
    """
    check_range("gamma", gamma, least=0, most=1)
    for statement in (_GAINS, _SEGMENTS, _RETURNS):
        source.db.execute(statement.replace("GAMMA", repr(float(gamma))))
    lowest, highest = source.one(
        """SELECT coalesce(min(least), 0), coalesce(max(total), 0)
        FROM (SELECT min(reward) AS least, sum(reward) AS total FROM gains GROUP BY episode)"""
    )
    if not 0 <= lowest <= highest <= 1 + TOLERANCE:
        raise UserError(
            source.files[0].parent,
            f"rewards from {lowest:g}, episodes with up to {highest:g} in sum",
            "give rewards whose sum over an episode lies in [0, 1]",
            field="reward",
        )


def action_values(source: Rollouts, gamma: float, *, min_visits: int = 1, valid_only: bool = False) -> None:
    """Create the view `action_values`, a row per (s, a): state, state_key, action, target, count, and the visit
    (episode, turn) of its text.
    """
    check_range("min_visits", min_visits, least=1, most=2**31)
    returns(source, gamma)
    source.db.execute(_MEANS, {"min_visits": min_visits, "valid_only": valid_only})
    source.db.execute(_ACTION_VALUES)

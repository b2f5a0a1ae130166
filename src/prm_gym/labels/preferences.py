"""Preference pairs (paper, section 2.3, "relative vs absolute losses"): two actions at one state whose Q differ.

A row per pair with `margin` = Q(s, a1) - Q(s, a2) >= delta. Q is that of `monte_carlo`, in [0, 1]. A state with a
single action, or with actions of equal Q, gives no row.

With `inadmissible` = K some rows follow from the environment and not from Eq. 1; their `margin` is null. At a state an
action that changes something is preferred to every inadmissible one that was tried, whatever their returns; and the
best of those actions to K inadmissible commands that were not: those of the episode so far, which pi repeats when it is
stuck, and those of other states. An inadmissible command costs a step and nothing else, so its Q is at most gamma V(s),
while the actions of pi that change something are worth V(s) or more on average. Returns of a few continuations show
this worst where pi seldom wins, and say nothing of what pi does not try: Stage 3 moves pi to such commands unless Q has
read some. An action has changed something if the admissible commands after it are others; those that did not, such as
`look`, are compared with inadmissible ones by their returns.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from prm_gym.errors import UserError, check_range
from prm_gym.labels.dataset import MESSAGES, Dataset, LabelReport
from prm_gym.labels.folders import one_or_more_folders
from prm_gym.labels.monte_carlo import action_values
from prm_gym.labels.sql_views import Rollouts, prompt_of
from prm_gym.labels.statistics import of_states, of_targets
from prm_gym.labels.turn_texts import completion, visits
from prm_gym.prompts import load

COLUMNS = [("prompt", MESSAGES), ("chosen", MESSAGES), ("rejected", MESSAGES), ("margin", pa.float64())]

_POOL = 500  # commands, the most frequent

# Of the visits: whether the action changed something (1), was inadmissible (-1), or neither (0).
_RANKED = """
CREATE TABLE ranked AS FROM action_values JOIN (
    SELECT t.state_key::UUID AS state, t.action,
           max(CASE WHEN NOT t.action_valid THEN -1
                    WHEN t.terminated AND NOT t.won THEN 0
                    WHEN now.admissible_commands IS DISTINCT FROM after.admissible_commands THEN 1 ELSE 0 END) AS rank
    FROM turns t JOIN episodes e USING (episode)
    JOIN rows now ON now.start = e.start AND now.turn = t.turn
    JOIN rows after ON after.start = e.start AND after.turn = t.turn + 1
    WHERE t.visit GROUP BY ALL
) USING (state, action)
"""
_UNRANKED = "CREATE VIEW ranked AS SELECT *, 0 AS rank FROM action_values"

# (s, a1 >= a2) with Q(s, a1) - Q(s, a2) >= delta, or the ranks 1 and -1. Rounded, or 0.95 - 0.92 would be below 0.03.
_PAIRS = """
CREATE TABLE pairs AS
SELECT a1.episode, a1.turn, a1.state_key,
       CASE WHEN a1.rank * a2.rank >= 0 THEN round(a1.target - a2.target, 12) END AS margin,
       a2.episode AS rejected_episode, a2.turn AS rejected_turn, a2.action AS rejected_action
FROM ranked a1 JOIN ranked a2 USING (state)
WHERE coalesce(margin >= $delta, a1.rank > 0)
"""

# The chosen and the rejected action are from different episodes.
_ROWS = """
SELECT p.episode, p.turn, p.state_key, p.margin, p.rejected_action, r.reason, r.response
FROM pairs p JOIN episodes e ON e.episode = p.rejected_episode
JOIN rows r ON r.part = e.part AND r.row = e.first_row + p.rejected_turn
"""

# At each state with a pair: the best action that changes something, against K commands that are inadmissible here and
# were not tried: first those of the episode so far, then those of other states, drawn by how often pi gives them. The K
# least of -ln(u) / weight are a weighted sample without replacement (Efraimidis and Spirakis, 2006).
_UNTRIED = f"""
INSERT INTO pairs
WITH best AS (
    SELECT b.episode, b.turn, b.state, b.state_key, e.start, r.admissible_commands
    FROM ranked b JOIN episodes e USING (episode) JOIN rows r ON r.start = e.start AND r.turn = b.turn
    WHERE rank > 0 AND b.state_key IN (SELECT state_key FROM pairs)
    QUALIFY row_number() OVER (PARTITION BY state ORDER BY target DESC, b.action) = 1
), earlier AS (
    SELECT b.*, h.action, max({{episode: b.episode, turn: h.turn}}) AS given, 0.0 AS draw
    FROM best b JOIN rows h ON h.start = b.start AND h.turn < b.turn WHERE h.action <> '' GROUP BY ALL
), pool AS (
    SELECT action, min({{episode: episode, turn: turn}}) AS given, sum(count) AS weight FROM ranked WHERE rank > 0
    GROUP BY action ORDER BY weight DESC, action LIMIT {_POOL}
), elsewhere AS (
    SELECT b.*, action, given, md5_number_lower(concat_ws(':', $seed::VARCHAR, b.state_key::VARCHAR, action)) AS number,
           -ln((number + 1.0) / pow(2, 64)) / weight AS draw
    FROM best b JOIN pool ON true
)
SELECT episode, turn, state_key, NULL, given.episode, given.turn, action
FROM (FROM earlier UNION ALL BY NAME SELECT * EXCLUDE (number) FROM elsewhere ANTI JOIN earlier USING (state, action))
ANTI JOIN ranked tried USING (state, action)
WHERE NOT list_contains(admissible_commands, action)
QUALIFY row_number() OVER (PARTITION BY state ORDER BY draw, action) <= $inadmissible
"""


@one_or_more_folders
def label(
    rollouts: Sequence[Path],
    out: Path,
    *,
    prompt: str | None = None,
    gamma: float = 0.95,
    delta: float = 0.015,
    min_visits: int = 1,
    valid_only: bool = False,
    inadmissible: int = 0,
    task_types: Sequence[str] | None = None,
    weights: Sequence[float] | None = None,
    train_share: float = 0.85,
    seed: int = 0,
) -> LabelReport:
    """Write the pairs.

    Parameters
    ----------
    delta
        The least margin, in (0, 1]. The default is the paper's 0.03 on its scale of [-1, 1].
    inadmissible
        K, the number of untried commands at a state; 0: all pairs are by their returns.

    The others are as in `monte_carlo.label`.

    Raises
    ------
    UserError
        As `monte_carlo.label`; `inadmissible` with `valid_only`, or for an environment that does not tell which actions
        are admissible.
    """
    prompt = prompt_of(rollouts, prompt)
    settings = locals().copy()
    check_range("delta", delta, above=0, most=1)
    check_range("inadmissible", inadmissible, least=0, most=_POOL)
    if inadmissible and valid_only:
        raise UserError("inadmissible", "valid_only leaves no inadmissible action", "leave one of the two out")
    template = load(prompt)
    with (
        Dataset(out, "preferences", COLUMNS, settings) as dataset,
        Rollouts(
            rollouts, dataset.work, weights=weights, task_types=task_types, seed=seed, train_share=train_share
        ) as source,
    ):
        if inadmissible and source.one("SELECT bool_or(reward IS NOT NULL AND action_valid IS NULL) FROM rows")[0]:
            problem = "some actions are not known to be admissible or not"
            raise UserError(source.files[0].parent, problem, "leave it out", field="inadmissible")
        action_values(source, gamma, min_visits=min_visits, valid_only=valid_only)
        source.db.execute(_RANKED if inadmissible else _UNRANKED)
        source.db.execute(_PAIRS, {"delta": delta})
        if inadmissible:
            source.db.execute(_UNTRIED, {"seed": seed, "inadmissible": inadmissible})
        for texts, row in visits(source, _ROWS, "episode, turn, rejected_action"):
            dataset.add(
                row,
                prompt=template.messages(texts.state(row["turn"])),
                chosen=texts.completion(template, row["turn"]),
                rejected=completion(template, row["reason"] or "", row["rejected_action"], row["response"] or ""),
                margin=row["margin"],
            )
        paired, mean = source.one("SELECT count(DISTINCT state_key), avg(margin) FROM pairs")
        values = {**of_targets(source, "action_values"), **of_states(source, "action_values")}
        if inadmissible:
            [values["pairs by the environment"]] = source.one("SELECT count(*) FROM pairs WHERE margin IS NULL")
        return dataset.finish(source, {**values, "states with a pair": paired, "mean margin": mean})

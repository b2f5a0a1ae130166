"""State values of a reference policy mu (paper, section 4.2, step 1), to fit a value model for shaping.

A row per state in which mu chose an action: `target` is the mean return from there over all visits, `count` their
number. The chosen action of a branch is not a sample of mu, so its state takes no return from that branch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from prm_gym.labels.dataset import MESSAGES, Dataset, LabelReport
from prm_gym.labels.folders import one_or_more_folders
from prm_gym.labels.monte_carlo import returns
from prm_gym.labels.sql_views import Rollouts, prompt_of
from prm_gym.labels.statistics import of_targets
from prm_gym.labels.turn_texts import visits
from prm_gym.prompts import load

COLUMNS = [("prompt", MESSAGES), ("target", pa.float64()), ("count", pa.int64())]

# V_mu(s) = E[G_t | s_t = s, a_t ~ mu]: the mean of G_t over the visits of s whose action mu sampled.
_STATE_VALUES = """
CREATE TABLE state_values AS
WITH v AS (
    SELECT state_key::UUID AS state, avg(g::DECIMAL(18, 15)) AS target, count(*) AS count,
           min(turn) AS turn, min(draw_rank) AS draw_rank
    FROM returns WHERE on_policy GROUP BY state
)
SELECT episode, state::BLOB AS state_key, v.* EXCLUDE (state, draw_rank) FROM v JOIN episodes USING (draw_rank)
"""


@one_or_more_folders
def label(
    rollouts: Sequence[Path],
    out: Path,
    *,
    prompt: str | None = None,
    gamma: float = 0.95,
    task_types: Sequence[str] | None = None,
    weights: Sequence[float] | None = None,
    train_share: float = 0.85,
    seed: int = 0,
) -> LabelReport:
    """Write the dataset of V_mu, mu being the policy of `rollouts`. Options and errors as in `monte_carlo.label`."""
    prompt = prompt_of(rollouts, prompt)
    settings = locals().copy()
    template = load(prompt)
    with (
        Dataset(out, "value", COLUMNS, settings) as dataset,
        Rollouts(
            rollouts, dataset.work, weights=weights, task_types=task_types, seed=seed, train_share=train_share
        ) as source,
    ):
        returns(source, gamma)
        source.db.execute(_STATE_VALUES)
        for texts, row in visits(source, "FROM state_values"):
            state = texts.state(row["turn"])
            dataset.add(row, prompt=template.messages(state), target=row["target"], count=row["count"])
        return dataset.finish(source, of_targets(source, "state_values"))

"""DAgger (Ross, Gordon and Bagnell, 2011; [40] of the paper): the expert's action at every state that was visited.

    D = union over i of {(s, pi*(s)) : s visited by pi_i}

A row per distinct state in which a policy of `rollouts` chose an action; `completion` is what ALFWorld's scripted
expert does there, which knows the history alone. Demonstrations are aggregated by naming their folder as well: their
states are labelled in the same way. The host's SFT trains on the rows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from prm_gym import provenance
from prm_gym.errors import UserError, check_range
from prm_gym.labels.dataset import MESSAGES, Dataset, LabelReport
from prm_gym.labels.folders import one_or_more_folders
from prm_gym.labels.sql_views import Rollouts, prompt_of
from prm_gym.labels.turn_texts import completion, visits
from prm_gym.policies.expert import ExpertPolicy
from prm_gym.prompts import load

COLUMNS = [("prompt", MESSAGES), ("completion", MESSAGES)]

# The distinct states of both splits, in a seeded order; of several visits the one with the lowest rank counts.
_STATES = """
CREATE TABLE states AS
SELECT episode, v.*,
       row_number() OVER (ORDER BY md5_number_lower($seed || hex(v.state_key)), v.state_key) AS place
FROM (
    SELECT state_key, min(turn) AS turn, min(draw_rank) AS draw_rank FROM turns WHERE visit GROUP BY state_key
) v JOIN episodes USING (draw_rank)
"""


@one_or_more_folders
def label(
    rollouts: Sequence[Path],
    out: Path,
    *,
    search: str = "rare_first",
    size: int | None = None,
    prompt: str | None = None,
    task_types: Sequence[str] | None = None,
    weights: Sequence[float] | None = None,
    train_share: float = 0.85,
    seed: int = 0,
) -> LabelReport:
    """Write the expert's actions.

    Parameters
    ----------
    rollouts
        Folders of episodes of all policies, and of demonstrations if they are to be aggregated.
    search
        The expert's order of search, see `ExpertPolicy`.
    size
        At most this many rows, over both splits; all if None.

    The others are as in `monte_carlo.label`.

    Raises
    ------
    UserError
        As `Rollouts`, `Dataset` and `ExpertPolicy`; episodes of another environment, for which there is no expert.
    """
    prompt = prompt_of(rollouts, prompt)
    settings = dict(locals())
    expert = ExpertPolicy(search=search)
    for folder in rollouts:
        record = provenance.read(Path(folder))
        if record is not None and "env" in record["settings"]:
            raise UserError(folder, "is of another environment", "the expert that labels states plays ALFWorld alone")
    if size is not None:
        check_range("size", size, least=1, most=2**40)
    template = load(prompt)
    with (
        Dataset(out, "dagger", COLUMNS, settings, {"expert": asyncio.run(expert.settings())}) as dataset,
        Rollouts(
            rollouts, dataset.work, weights=weights, task_types=task_types, seed=seed, train_share=train_share
        ) as source,
    ):
        source.db.execute(_STATES, {"seed": f"dagger:{seed}:"})
        (distinct,) = source.one("SELECT count(*) FROM states")
        agreed = rows = 0
        keep = "TRUE" if size is None else f"place <= {size}"
        for texts, row in visits(source, f"SELECT episode, turn, state_key FROM states WHERE {keep}"):
            state = texts.state(row["turn"])
            said = expert.respond(state, seed=seed)
            agreed, rows = agreed + (said.action == texts.actions[row["turn"]]), rows + 1
            dataset.add(
                row,
                prompt=template.messages(state),
                completion=completion(template, said.reason, said.action, said.text),
            )
        facts = {"distinct states": distinct, "share where the action taken is the expert's": agreed / max(rows, 1)}
        return dataset.finish(source, facts)

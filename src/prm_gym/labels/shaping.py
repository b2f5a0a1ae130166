"""Process reward shaping (paper, section 4.2, Eq. 13): Monte Carlo targets mixed with a reference policy's advantage.

    x = (1 - alpha) Q(s, a) + alpha A_mu(s, a),     A_mu(s, a) = r + gamma V_mu(s') - V_mu(s),     V_mu in [0, 1]

A_mu is in [-1, 1], so x is in [-alpha, 1], and `target` = (x + alpha) / (1 + alpha) is in [0, 1]. This keeps the order
of targets. alpha = 0 gives the targets of `monte_carlo`, alpha = 1 those of AggreVaTe.

V_mu(s') is 0 if s' is terminal. V_mu(s) is subtracted at every step, the last included. The value of the final state of
a truncated episode is 0 if it is unknown, which is its return in Eq. 1. Rows with any other unknown value are left out
and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from prm_gym import provenance
from prm_gym.errors import UserError, check_range
from prm_gym.labels.dataset import Dataset, LabelReport, name_of
from prm_gym.labels.folders import one_or_more_folders
from prm_gym.labels.monte_carlo import COLUMNS, action_values
from prm_gym.labels.sql_views import Rollouts, file_list, prompt_of
from prm_gym.labels.statistics import of_states, of_targets
from prm_gym.labels.turn_texts import visits
from prm_gym.prompts import Prompt, load
from prm_gym.types import Message

ValueFn = Callable[[list[list[Message]]], list[float]]
"""V_mu of states given as prompts: one number in [0, 1] each (the output of a sigmoid, not a logit)."""

_VALUE_BATCH = 256

# A_mu averaged over the visits of (s, a), and Eq. 13. A visit of unknown value makes the advantage unknown.
_SHAPED = """
CREATE TABLE shaped AS
WITH advantages AS (
    SELECT s.state_key, s.action, bool_and(reward + after + here IS NOT NULL) AS known,
           avg((reward + GAMMA * after - here)::DECIMAL(18, 15)) AS advantage
    FROM (
        SELECT t.state_key, t.action, t.reward, v.value AS here,
               CASE WHEN t.terminated THEN 0 WHEN s2.final THEN coalesce(v2.value, 0) ELSE v2.value END AS after
        FROM turns t JOIN turns s2 ON s2.episode = t.episode AND s2.turn = t.turn + 1
        LEFT JOIN reference v ON v.state_key = t.state_key LEFT JOIN reference v2 ON v2.state_key = s2.state_key
        WHERE t.visit
    ) AS s GROUP BY s.state_key, s.action
)
SELECT q.* EXCLUDE (target), CASE WHEN known THEN ((1 - ALPHA) * target + ALPHA * advantage + ALPHA) / (1 + ALPHA) END
           AS target
FROM action_values q JOIN advantages USING (state_key, action)
"""

# Every state that needs a value: those with an action, and their successors unless terminal.
_STATES = """
SELECT episode, turn, state_key FROM (
    SELECT min(draw_rank) AS draw_rank, min(turn) AS turn, state_key FROM turns t SEMI JOIN (
        SELECT episode, turn FROM turns WHERE visit
        UNION SELECT episode, turn + 1 FROM turns WHERE visit AND NOT terminated
    ) USING (episode, turn) GROUP BY state_key
) JOIN episodes USING (draw_rank)
"""


@one_or_more_folders
def label(
    rollouts: Sequence[Path],
    out: Path,
    *,
    values: Path | None = None,
    value_fn: ValueFn | None = None,
    alpha: float = 0.5,
    prompt: str | None = None,
    gamma: float = 0.95,
    min_visits: int = 1,
    valid_only: bool = False,
    task_types: Sequence[str] | None = None,
    weights: Sequence[float] | None = None,
    train_share: float = 0.85,
    seed: int = 0,
) -> LabelReport:
    """Write the shaped targets.

    Parameters
    ----------
    values
        V_mu as a dataset that `value.label` wrote from rollouts of mu.
    value_fn
        V_mu as a function of prompts, such as a fitted value model. Its attribute `identity`, if any, is recorded in
        provenance.json. Give this or `values`.
    alpha
        The weight of the reference policy, in [0, 1].

    The others are as in `monte_carlo.label`.

    Raises
    ------
    UserError
        As `monte_carlo.label`; no values or both kinds; values of another gamma; a value outside [0, 1].
    """
    prompt = prompt_of(rollouts, prompt)
    settings = {name: value for name, value in locals().items() if name != "value_fn"}
    value_model = getattr(value_fn, "identity", None)
    settings["value_model"] = name_of(value_model)
    check_range("alpha", alpha, least=0, most=1)
    if (values is None) == (value_fn is None):
        problem = "both are given" if values is not None else "neither is given"
        raise UserError("values", f"V_mu is one dataset or one model, {problem}", "give one of the two")
    template = load(prompt)
    with (
        Dataset(out, "shaping", COLUMNS, settings, {"value_model": value_model}) as dataset,
        Rollouts(
            rollouts, dataset.work, weights=weights, task_types=task_types, seed=seed, train_share=train_share
        ) as source,
    ):
        action_values(source, gamma, min_visits=min_visits, valid_only=valid_only)
        if values is not None:
            _read_values(source, values, gamma)
        elif value_fn is not None:
            _ask_values(source, template, value_fn)
        source.db.execute(_SHAPED.replace("GAMMA", repr(float(gamma))).replace("ALPHA", repr(float(alpha))))
        unknown, lowest, highest = source.one(
            "SELECT count(*) - count(target), coalesce(min(target), 0), coalesce(max(target), 0) FROM shaped"
        )
        if not -1e-9 <= lowest <= highest <= 1 + 1e-9:
            problem = f"targets from {lowest:g} to {highest:g}"
            raise UserError(values or "value_fn", problem, "give V_mu and rewards with r + V_mu <= 1")
        source.db.execute("DELETE FROM shaped WHERE target IS NULL")
        for texts, row in visits(source, "SELECT * EXCLUDE (state) FROM shaped"):
            dataset.add(
                row,
                prompt=template.messages(texts.state(row["turn"])),
                completion=texts.completion(template, row["turn"]),
                target=min(max(row["target"], 0.0), 1.0),
                count=row["count"],
            )
        facts = {**of_targets(source, "shaped"), **of_states(source, "shaped")}
        facts["target"] = f"((1 - {alpha:g}) Q + {alpha:g} A_mu + {alpha:g}) / {1 + alpha:g}"
        return dataset.finish(source, facts, {"rows of unknown value": unknown})


def _read_values(source: Rollouts, folder: Path, gamma: float) -> None:
    files = sorted(folder.glob("data/*.parquet"))
    remedy = "name a folder that `prm-gym label value` wrote"
    if not files:
        raise UserError(folder, "holds no value dataset", remedy)
    record = provenance.read(folder)
    settings = record["settings"] if record is not None else {"label": "value", "gamma": gamma}
    if settings.get("label") != "value":
        raise UserError(folder, f"is a dataset of {settings.get('label')}, not of value", remedy)
    if settings["gamma"] != gamma:  # Eq. 13 has one
        problem = f"V_mu with gamma {settings['gamma']}, not {gamma}"
        raise UserError(folder, problem, "give both the same", field="gamma")
    for column in ("state_key", "target"):
        if any(column not in pq.read_schema(file).names for file in files):
            raise UserError(folder, "no such column", remedy, field=column)
    source.db.execute(
        f"""CREATE TABLE reference AS
        SELECT state_key::BLOB AS state_key, target::DOUBLE AS value FROM read_parquet({file_list(files)})"""
    )
    _check_values(source, folder)


def _ask_values(source: Rollouts, template: Prompt, value_fn: ValueFn) -> None:
    source.db.execute("CREATE TABLE reference (state_key BLOB, value DOUBLE)")
    states = visits(source, _STATES)
    while batch := [(texts.state(row["turn"]), row["state_key"]) for texts, row in islice(states, _VALUE_BATCH)]:
        found = [float(value) for value in value_fn([template.messages(state) for state, _ in batch])]
        if len(found) != len(batch):
            raise UserError("value_fn", f"gave {len(found)} values for {len(batch)} states", "return one for each")
        table = pa.table({"state_key": pa.array([key for _, key in batch], pa.binary()), "value": found})
        source.db.register("found", table)
        source.db.execute("INSERT INTO reference FROM found")
    _check_values(source, "value_fn")


def _check_values(source: Rollouts, where: Path | str) -> None:
    (wrong,) = source.one("SELECT count(*) FROM reference WHERE value IS NULL OR NOT value BETWEEN 0 AND 1")
    if wrong:
        raise UserError(where, f"{wrong} values outside [0, 1]", "give V_mu as a share of wins, not as a logit")

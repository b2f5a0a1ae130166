"""Transitions for InversePRM (paper, section 3.2, Algorithm 2): demonstrations against all past policies.

A row per transition (s, a, s', a'): D+ (`expert` true) from successful demonstrations, D- from the rollouts of
pi_0 .. pi_{i-1}. The next action a' of both is freshly sampled from pi_{i-1}. `terminated` is true only if s' is
terminal (won or lost): then there is no a', and `next_prompt` and `next_completion` are empty. A time-out is not
terminal.

Each split is balanced by transition: every past policy has the same number, and together they have as many as D+.
Surplus transitions are left out by a seeded draw. Frequencies within D+ and D- are those of the episodes; duplicates
are kept. Branches are left out, since the policy would not have visited their states.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from prm_gym.errors import UserError, check_range
from prm_gym.labels.dataset import MESSAGES, Dataset, LabelReport, name_of
from prm_gym.labels.folders import one_or_more_folders
from prm_gym.labels.sampled_responses import sample_responses
from prm_gym.labels.sql_views import Rollouts, prompt_of
from prm_gym.labels.turn_texts import completion, visits
from prm_gym.prompts import load
from prm_gym.types import Policy

COLUMNS = [
    ("prompt", MESSAGES),
    ("completion", MESSAGES),
    ("next_prompt", MESSAGES),
    ("next_completion", MESSAGES),
    ("terminated", pa.bool_()),
    ("expert", pa.bool_()),
]

# Algorithm 2, lines 1 and 5: D+ = {(s*, a*, s'*)}, D- = the union over all past policies of (s, a, s').
_TRANSITIONS = """
CREATE TABLE transitions AS
SELECT t.episode, t.draw_rank, t.turn, t.state_key, t.split, t.terminated, t.role = 'expert' AS expert,
       CASE WHEN t.role = 'policy' THEN t.policy_id END AS policy_id, s2.state_key AS next_key,
       md5_number_lower(concat_ws(':', 'transition', $seed::VARCHAR, t.draw_rank::VARCHAR, t.turn::VARCHAR)) AS draw
FROM turns t JOIN turns s2 ON s2.episode = t.episode AND s2.turn = t.turn + 1
WHERE t.visit AND NOT t.branch AND (t.role = 'policy' OR t.won) AND (t.action_valid OR NOT $valid_only)
"""

# The largest k per split such that each of its P policies has k transitions and D+ has k P.
_BALANCE = """
CREATE OR REPLACE TABLE transitions AS
WITH sizes AS (
    SELECT split, policy_id, expert, count(*) AS n FROM transitions GROUP BY ALL
), share AS (
    SELECT split, least(min(n) FILTER (NOT expert), (sum(n) FILTER (expert) // $policies)::BIGINT) AS k
    FROM sizes GROUP BY split HAVING count(*) FILTER (NOT expert) = $policies AND count(*) FILTER (expert) = 1
), numbered AS (
    SELECT *, row_number() OVER (PARTITION BY split, expert, policy_id ORDER BY draw, episode, turn) AS place
    FROM transitions
)
SELECT numbered.* EXCLUDE (place) FROM numbered JOIN share USING (split)
WHERE place <= CASE WHEN expert THEN k * $policies ELSE k END
"""

# Line 6: a' ~ pi_{i-1}(s'). Each next state once, with the number of transitions into it.
_NEXT_STATES = """
SELECT episode, turn, state_key, samples FROM (
    SELECT min(draw_rank) AS draw_rank, min(turn) + 1 AS turn, next_key AS state_key, count(*) AS samples
    FROM transitions WHERE NOT terminated GROUP BY next_key
) JOIN episodes USING (draw_rank)
"""
_NEXT_ACTIONS = """
CREATE TABLE next_actions AS
SELECT state_key AS next_key, sample.unnest AS sample, samples[sample.unnest] AS a
FROM responses, unnest(range(1, len(samples) + 1)) AS sample
"""

# Each transition takes its own sample at its next state.
_ROWS = """
SELECT t.episode, t.turn, t.state_key, t.terminated, t.expert, n.a.reason, n.a.action, n.a.response
FROM (
    SELECT *, row_number() OVER (PARTITION BY next_key, terminated ORDER BY expert, episode, turn) AS sample
    FROM transitions
) t LEFT JOIN next_actions n ON n.next_key = t.next_key AND n.sample = t.sample AND NOT t.terminated
"""

_TOO_LONG = """
DELETE FROM transitions WHERE NOT terminated AND next_key NOT IN (SELECT next_key FROM next_actions)
"""


@one_or_more_folders
def label(
    rollouts: Sequence[Path],
    out: Path,
    *,
    expert: Sequence[Path],
    policy: Policy,
    prompt: str | None = None,
    valid_only: bool = False,
    concurrency: int = 256,
    task_types: Sequence[str] | None = None,
    weights: Sequence[float] | None = None,
    train_share: float = 0.85,
    seed: int = 0,
) -> LabelReport:
    """Write D+ and D-.

    Parameters
    ----------
    rollouts
        Folders of all past policies pi_0 .. pi_{i-1}, identified by policy_id.
    expert
        Folders of demonstrations; only successful episodes count.
    policy
        pi_{i-1}, which samples the next actions, with at most `concurrency` requests at once. It is closed
        after the sampling, whether that succeeds or not.
    valid_only
        Leave out transitions by an action that was not admissible.

    The others are as in `monte_carlo.label`. Sampled actions are kept in `OUT.relabel.jsonl` until the dataset is
    complete: after a kill, the same command resumes from there.

    Raises
    ------
    UserError
        As `Rollouts` and `Dataset`; no demonstration; no split with all policies and demonstrations.
    """
    prompt = prompt_of(rollouts, prompt)
    settings = {name: value for name, value in locals().items() if name != "policy"}
    policy_settings = asyncio.run(policy.settings())
    settings["policy"] = name_of(policy_settings)
    check_range("concurrency", concurrency, least=1, most=2**20)
    if not expert:
        raise UserError("expert", "no demonstrations given", "name folders of expert episodes")
    template = load(prompt)
    out = Path(out)
    journal = out.parent / f"{out.name}.relabel.jsonl"
    with (
        Dataset(out, "inverse", COLUMNS, settings, {"policy": policy_settings}) as dataset,
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
        source.db.execute(_TRANSITIONS, {"seed": seed, "valid_only": valid_only})
        positives, negatives, policies = source.one(
            """SELECT count(*) FILTER (expert), count(*) FILTER (NOT expert), count(DISTINCT policy_id)
            FROM transitions"""
        )
        if not positives:
            raise UserError(expert[0], "holds no successful episode", "name a folder of expert demonstrations")
        source.db.execute(_BALANCE, {"policies": policies})
        (balanced,) = source.one("SELECT count(*) FROM transitions")
        states, there = sample_responses(
            source, _NEXT_STATES, policy, policy_settings, journal, seed=seed, concurrency=concurrency
        )
        source.db.execute(_NEXT_ACTIONS)
        source.db.execute(_TOO_LONG)
        (kept,) = source.one("SELECT count(*) FROM transitions")
        source.db.execute(_BALANCE, {"policies": policies})
        for texts, row in visits(source, _ROWS):
            turn, ended = row["turn"], row["terminated"]
            dataset.add(
                row,
                prompt=template.messages(texts.state(turn)),
                completion=texts.completion(template, turn),
                next_prompt=[] if ended else template.messages(texts.state(turn + 1)),
                next_completion=[] if ended else completion(template, row["reason"], row["action"], row["response"]),
                terminated=ended,
                expert=row["expert"],
            )
        rows, wins = source.one("SELECT count(*), count(*) FILTER (terminated) FROM transitions")
        facts = {
            "transitions": {"demonstrations": positives, "policies": negatives},
            "past policies": policies,
            "terminated": wins,
        }
        left_out = {
            "transitions by balance": positives + negatives - rows - (balanced - kept),
            "next prompt too long": balanced - kept,
        }
        report = dataset.finish(source, facts, left_out)
    journal.unlink()
    note = f"next actions at {states:,} states; {there:,} were there already, {states - there:,} are new"
    return replace(report, note=note) if there else report

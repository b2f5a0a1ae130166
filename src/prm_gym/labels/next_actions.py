"""Fresh next actions a' ~ pi_{i-1}(s') for `inverse` (paper, Algorithm 2, line 6), resumable after a kill.

Every finished state is a line of a journal beside the dataset; the same command resumes after the last whole line. The
head of the journal has the policy, its settings and the seed. A journal with another head is refused, so actions of two
policies are never mixed.
"""

from __future__ import annotations

import asyncio
import json
from hashlib import blake2b
from pathlib import Path
from typing import IO

from prm_gym import provenance
from prm_gym.errors import UserError
from prm_gym.labels.sql_views import Rollouts, file_list
from prm_gym.labels.turn_texts import visits
from prm_gym.types import Policy, PromptTooLong, State

# Each next state once, with the number of transitions into it, which is the number of actions to sample.
_NEXT_STATES = """
SELECT episode, turn, state_key, samples FROM (
    SELECT min(draw_rank) AS draw_rank, min(turn) + 1 AS turn, next_key AS state_key, count(*) AS samples
    FROM transitions WHERE NOT terminated GROUP BY next_key
) JOIN episodes USING (draw_rank)
"""

# One line per sampled action, numbered within its state.
_NEXT_ACTIONS = """
CREATE TABLE next_actions AS
SELECT unhex(state) AS next_key, sample.unnest AS sample, samples[sample.unnest].reason AS reason,
       samples[sample.unnest].action AS action, samples[sample.unnest].response AS response
FROM (
    SELECT state, arg_max(samples, asked) AS samples
    FROM read_json(JOURNAL, format = 'newline_delimited', columns = {
        state: 'VARCHAR', asked: 'BIGINT', samples: 'STRUCT(reason VARCHAR, action VARCHAR, response VARCHAR)[]'
    }) WHERE state IS NOT NULL GROUP BY state
), unnest(range(1, len(samples) + 1)) AS sample
"""


def relabel(
    source: Rollouts, policy: Policy, settings: provenance.Settings, journal: Path, *, seed: int, concurrency: int
) -> tuple[int, int]:
    """Sample the next actions of the table `transitions` into the table `next_actions`, and close the policy.

    next_actions has next_key, sample (1, 2, ...), reason, action, response: a line per transition into a next state,
    none if its prompt is too long for the policy. Returns the number of next states, and how many of them the journal
    already had.

    Raises
    ------
    UserError
        The journal is of another policy, other settings or another seed. Errors of the policy are raised as they are;
        finished states stay in the journal.
    """
    head = {"policy_id": policy.policy_id, "seed": seed, "policy": settings}
    done = _open_journal(journal, head)
    with journal.open("a", encoding="utf-8") as lines:
        counts = asyncio.run(_sample_all(source, policy, seed, concurrency, done, lines))
    source.db.execute(_NEXT_ACTIONS.replace("JOURNAL", file_list([journal])))
    return counts


def _open_journal(journal: Path, head: dict[str, object]) -> dict[str, int]:
    """Truncate a half-written last line and check the head. Returns the number of samples of each state."""
    if not journal.exists():
        journal.write_text(json.dumps(head) + "\n", encoding="utf-8")
    with journal.open("rb+") as file:
        whole = 0
        done: dict[str, int] = {}
        for line in file:
            if not line.endswith(b"\n"):
                break
            try:
                entry = json.loads(line)
                if whole:
                    done[entry["state"]] = entry["asked"]
            except (ValueError, KeyError, TypeError) as error:
                problem = f"cannot be read (byte {whole:,}: {error!r})"
                raise UserError(journal, problem, "move it away to sample these actions again") from None
            if not whole:
                provenance.refuse_others(journal, entry, head, "remove it, or go on with the same policy")
            whole += len(line)
        file.truncate(whole)
        if whole == 0:
            file.write((json.dumps(head) + "\n").encode())
    return done


async def _sample_all(
    source: Rollouts, policy: Policy, seed: int, concurrency: int, done: dict[str, int], lines: IO[str]
) -> tuple[int, int]:
    async def sample(state: State, key: bytes, n: int) -> None:
        draw = int.from_bytes(blake2b(key + str(seed).encode(), digest_size=4).digest(), "big") >> 1
        try:
            responses = await policy.act(state, n=n, seed=draw)
            if len(responses) != n:
                raise RuntimeError(f"{policy.policy_id} gave {len(responses)} responses for {n}")
        except PromptTooLong:
            responses = []
        samples = [{"reason": r.reason, "action": r.action, "response": r.text} for r in responses]
        lines.write(json.dumps({"state": key.hex(), "asked": n, "samples": samples}) + "\n")
        lines.flush()

    pending: set[asyncio.Task[None]] = set()
    states = there = 0
    try:
        for texts, row in visits(source, _NEXT_STATES):
            states += 1
            if done.get(row["state_key"].hex(), 0) >= row["samples"]:
                there += 1
                continue
            if len(pending) >= concurrency:
                finished, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in finished:
                    task.result()
            state = texts.state(row["turn"])
            pending.add(asyncio.create_task(sample(state, row["state_key"], row["samples"])))
        await asyncio.gather(*pending)
        return states, there
    finally:
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        await policy.close()

"""Fresh responses of a policy at states of the store, resumable after a kill.

Every finished state is a line of a journal beside the dataset; the same command resumes after the last whole line. The
head of the journal has the policy, its settings and the seed. A journal with another head is refused, so responses of
two policies are never mixed.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import IO

from prm_gym import provenance
from prm_gym.errors import UserError
from prm_gym.journal import whole_lines
from prm_gym.labels.sql_views import Rollouts, file_list
from prm_gym.labels.turn_texts import visits
from prm_gym.rollout.concurrency import in_parallel
from prm_gym.types import Policy, PromptTooLong, State

# A row per state: its samples in the order of their numbers.
_RESPONSES = """
CREATE TABLE responses AS
SELECT unhex(state) AS state_key, arg_max(samples, asked) AS samples
FROM read_json(JOURNAL, format = 'newline_delimited', columns = {
    state: 'VARCHAR', asked: 'BIGINT',
    samples: 'STRUCT(reason VARCHAR, action VARCHAR, response VARCHAR, tokens BIGINT, finished BOOLEAN)[]'
}) WHERE state IS NOT NULL GROUP BY state
"""


def sample_responses(
    source: Rollouts,
    states: str,
    policy: Policy,
    settings: provenance.Settings,
    journal: Path,
    *,
    seed: int,
    concurrency: int,
) -> tuple[int, int]:
    """Sample at the states of the query `states` into the table `responses`, and close the policy.

    The query has columns episode, turn, state_key and samples, the number of responses to sample. `responses` has
    state_key and samples, a list of {reason, action, response, tokens, finished}, empty if the prompt is too long for
    the policy. Returns the number of states, and how many of them the journal already had.

    Raises
    ------
    UserError
        The journal is of another policy, other settings or another seed. Errors of the policy are raised as they are;
        finished states stay in the journal.
    """
    head = {"policy_id": policy.policy_id, "seed": seed, "policy": settings}
    done = open_journal(journal, head)
    with journal.open("a", encoding="utf-8") as lines:
        counts = asyncio.run(_sample_all(source, states, policy, seed, concurrency, done, lines))
    source.db.execute(_RESPONSES.replace("JOURNAL", file_list([journal])))
    return counts


def open_journal(journal: Path, head: dict[str, object]) -> dict[str, int]:
    """Truncate a half-written last line and check the head. Returns the number of samples of each state."""
    done: dict[str, int] = {}
    number = 0
    for number, line in enumerate(whole_lines(journal), 1):
        try:
            entry = json.loads(line)
            if number > 1:
                done[entry["state"]] = entry["asked"]
        except (ValueError, KeyError, TypeError) as error:
            problem = f"line {number:,} cannot be read ({error!r})"
            raise UserError(journal, problem, "move it away to sample these responses again") from None
        if number == 1:
            provenance.refuse_others(journal, entry, head, "remove it, or go on with the same policy")
    if not number:
        journal.write_text(json.dumps(head) + "\n", encoding="utf-8")
    return done


async def _sample_all(
    source: Rollouts, states: str, policy: Policy, seed: int, concurrency: int, done: dict[str, int], lines: IO[str]
) -> tuple[int, int]:
    async def sample(place: tuple[State, bytes, int]) -> None:
        state, key, n = place
        draw = int.from_bytes(blake2b(key + str(seed).encode(), digest_size=4).digest(), "big") >> 1
        try:
            responses = await policy.act(state, n=n, seed=draw)
            if len(responses) != n:
                raise RuntimeError(f"{policy.policy_id} gave {len(responses)} responses for {n}")
        except PromptTooLong:
            responses = []
        samples = [
            {
                "reason": r.reason,
                "action": r.action,
                "response": r.text,
                "tokens": r.response_tokens,
                "finished": r.finished,
            }
            for r in responses
        ]
        lines.write(json.dumps({"state": key.hex(), "asked": n, "samples": samples}) + "\n")
        lines.flush()

    count = there = 0

    def new() -> Iterator[tuple[State, bytes, int]]:
        nonlocal count, there
        for texts, row in visits(source, states):
            count += 1
            if done.get(row["state_key"].hex(), 0) >= row["samples"]:
                there += 1
            else:
                yield texts.state(row["turn"]), row["state_key"], row["samples"]

    try:
        await in_parallel(new(), sample, concurrency)
        return count, there
    finally:
        await policy.close()

"""Stage 3 by rejection sampling (paper, section 2.2): at each state the best of N responses by Q, for the host's SFT.

    a* = argmax_{a in {a_1, ..., a_N}} Q(s, a),   a_1, ..., a_N ~ pi_{i-1}(. | s)

The states are those of `prompts`. A row has a state as `prompt`, the best response, as it was sampled, as `completion`,
and `q`, its Q in [0, 1]. Of responses with the same action the first stands for all. A response cut off at the length
limit is never the best; a state with no other is left out.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from prm_gym.errors import check_range
from prm_gym.labels.dataset import MESSAGES, Dataset, LabelReport, name_of
from prm_gym.labels.folders import one_or_more_folders
from prm_gym.labels.sampled_responses import sample_responses
from prm_gym.labels.sql_views import Rollouts, prompt_of
from prm_gym.labels.stage3_states import check_choice, stage3_states
from prm_gym.labels.turn_texts import visits
from prm_gym.prm.scorer import Scorer, sigmoid
from prm_gym.prompts import load
from prm_gym.types import Policy, PromptTooLong, Response, State

COLUMNS = [("prompt", MESSAGES), ("completion", MESSAGES), ("q", pa.float32())]
_CHUNK = 256  # states whose responses are scored together

_STATES = "SELECT *, {n} AS samples FROM ({states})"
_SAMPLED = "SELECT chosen.*, r.samples[:{n}] AS samples FROM ({states}) AS chosen JOIN responses r USING (state_key)"


@one_or_more_folders
def label(
    rollouts: Sequence[Path],
    out: Path,
    *,
    policy: Policy,
    scorer: Scorer,
    n: int = 16,
    expert: Sequence[Path] = (),
    expert_fraction: float = 0.5,
    size: int | None = None,
    prompt: str | None = None,
    concurrency: int = 256,
    task_types: Sequence[str] | None = None,
    weights: Sequence[float] | None = None,
    train_share: float = 0.85,
    seed: int = 0,
) -> LabelReport:
    """Write the best responses.

    Parameters
    ----------
    policy
        pi_{i-1}, which samples `n` responses at each state, with at most `concurrency` states at once.
    scorer
        Q_{i-1}. Both are closed after their part of the work, whether it succeeds or not.
    expert, expert_fraction, size
        The states, as in `prompts.label`.

    The others, and the errors, are as in `monte_carlo.label`. Sampled responses are kept in `OUT.sampled.jsonl` until
    the dataset is complete: after a kill, the same command resumes from there.
    """
    prompt = prompt_of(rollouts, prompt)
    settings = {name: value for name, value in locals().items() if name not in ("policy", "scorer")}
    policy_settings, scorer_settings = asyncio.run(policy.settings()), asyncio.run(scorer.settings())
    settings |= {"policy": name_of(policy_settings), "prm": name_of(scorer_settings)}
    check_choice(expert_fraction, size)
    check_range("n", n, least=1, most=2**20)
    check_range("concurrency", concurrency, least=1, most=2**20)
    template = load(prompt)
    out = Path(out)
    journal = out.parent / f"{out.name}.sampled.jsonl"
    made_with = {"policy": policy_settings, "prm": scorer_settings}
    with (
        Dataset(out, "rejection_sampling", COLUMNS, settings, made_with) as dataset,
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
        states, facts = stage3_states(source, expert, expert_fraction, size, seed)
        asked = _STATES.format(n=n, states=states)
        all_states, there = sample_responses(
            source, asked, policy, policy_settings, journal, seed=seed, concurrency=concurrency
        )
        counts = Counts()

        async def write() -> None:
            async for state, row, best, q in _best(source, _SAMPLED.format(n=n, states=states), scorer, counts):
                completion = [{"role": "assistant", "content": best.text}]
                dataset.add(row, prompt=template.messages(state), completion=completion, q=q)

        asyncio.run(write())
        report = dataset.finish(source, {**facts, **counts.facts()}, counts.left_out())
    journal.unlink()
    note = f"responses at {all_states:,} states; {there:,} were there already, {all_states - there:,} are new"
    return replace(report, note=note) if there else report


class Counts:
    """Of the states and the sampled responses."""

    def __init__(self) -> None:
        self.responses = self.tokens = self.cut_off = self.too_long = self.none_finished = self.single = 0
        self.best: list[float] = []
        self.all: list[float] = []

    def facts(self) -> dict[str, Any]:
        mean = {name: sum(of) / max(len(of), 1) for name, of in (("best", self.best), ("distinct actions", self.all))}
        sampled = {"responses": self.responses, "tokens": self.tokens, "cut off": self.cut_off}
        return {"sampled": sampled, "states with one action": self.single, "mean Q": mean}

    def left_out(self) -> dict[str, int]:
        return {"prompt too long": self.too_long, "no response ended": self.none_finished}


async def _best(
    source: Rollouts, states: str, scorer: Scorer, counts: Counts
) -> AsyncIterator[tuple[State, dict[str, Any], Response, float]]:
    """(state, row, best response, its Q) of each state with a response that ended. Closes the scorer."""

    async def score(state: State, candidates: list[Response]) -> list[float] | None:
        try:
            return await scorer.logits([(state, response) for response in candidates])
        except PromptTooLong:
            return None

    try:
        found = ((texts.state(row["turn"]), row) for texts, row in visits(source, states))
        while chunk := list(islice(found, _CHUNK)):
            choices = [_candidates(row["samples"], counts) for _, row in chunk]
            logits = await asyncio.gather(
                *(score(state, options) for (state, _), options in zip(chunk, choices, strict=True) if options)
            )
            scored = iter(logits)
            for (state, row), options in zip(chunk, choices, strict=True):
                values = next(scored) if options else None
                if values is None:
                    counts.too_long += bool(options) or not row["samples"]
                    counts.none_finished += bool(row["samples"]) and not options
                    continue
                best = max(range(len(options)), key=values.__getitem__)
                counts.best.append(sigmoid(values[best]))
                counts.all.append(sum(map(sigmoid, values)) / len(values))
                counts.single += len(options) == 1
                yield state, row, options[best], counts.best[-1]
    finally:
        await scorer.close()


def _candidates(samples: list[dict[str, Any]], counts: Counts) -> list[Response]:
    """The first response of each action, of those that ended."""
    counts.responses += len(samples)
    counts.tokens += sum(each["tokens"] for each in samples)
    distinct: dict[str, Response] = {}
    for each in samples:
        if each["finished"]:
            distinct.setdefault(each["action"], Response(each["response"], each["reason"], each["action"]))
        else:
            counts.cut_off += 1
    return list(distinct.values())

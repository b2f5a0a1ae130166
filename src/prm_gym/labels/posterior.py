"""Demonstrations with reasons in hindsight (PosteriorExplorer; paper, section 4.1, strategy 3).

For every turn of a won episode a model reads the state, the action that was taken and how the episode went on
(`prompts.hindsight`), and writes the reason again. Of `samples` reasons the first is kept that is not empty, is
followed by the same action, and passes `leaks.leak`. Rows are those of `sft` with a row for each turn: the prompt is
the plain one, and a model trained on it reasons without the future. A turn without such a reason, or whose response
named no action, is left out.

The other use of hindsight, as the exploration prompt of Stage 3, is the option `hindsight` of `labels.prompts`.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import IO, Any

from prm_gym.errors import UserError, check_range
from prm_gym.labels.dataset import MESSAGES, Dataset, LabelReport, name_of
from prm_gym.labels.folders import one_or_more_folders
from prm_gym.labels.leaks import leak
from prm_gym.labels.sampled_responses import open_journal
from prm_gym.labels.sft import DEMONSTRATIONS, TURNS
from prm_gym.labels.sql_views import Rollouts, prompt_of
from prm_gym.labels.turn_texts import Texts, check_shows_reasons, visits
from prm_gym.prompts import Prompt, load
from prm_gym.prompts.hindsight import hindsight_messages
from prm_gym.provenance.fingerprints import of_prompt
from prm_gym.rollout.concurrency import in_parallel
from prm_gym.types import ChatModel, PromptTooLong, Response

COLUMNS = [("prompt", MESSAGES), ("completion", MESSAGES)]


@one_or_more_folders
def label(
    rollouts: Sequence[Path],
    out: Path,
    *,
    policy: ChatModel,
    samples: int = 4,
    prompt: str | None = None,
    valid_only: bool = False,
    concurrency: int = 256,
    task_types: Sequence[str] | None = None,
    weights: Sequence[float] | None = None,
    train_share: float = 0.85,
    seed: int = 0,
) -> LabelReport:
    """Write the demonstrations.

    Parameters
    ----------
    policy
        The model that writes the reasons: in process, on a server or an API. It is closed after the
        sampling, whether that succeeds or not.
    samples
        Reasons sampled for each turn, at once.
    valid_only
        Leave out turns whose action was not admissible.

    The others are as in `monte_carlo.label`. What was sampled is kept in `OUT.posterior.jsonl` until the dataset is
    complete: after a kill, the same command resumes from there. The report counts refused reasons by cause, and tokens.

    Raises
    ------
    UserError
        As `Rollouts` and `Dataset`; a prompt whose response shows no reason; a model of which no reason
        passes. Errors of the policy are raised as they are.
    """
    prompt = prompt_of(rollouts, prompt)
    settings = {name: value for name, value in locals().items() if name != "policy"}
    check_range("samples", samples, least=1, most=2**16)
    check_range("concurrency", concurrency, least=1, most=2**20)
    template = load(prompt)
    check_shows_reasons(template, "reasons")
    out = Path(out)
    journal = out.parent / f"{out.name}.posterior.jsonl"
    made_with = asyncio.run(policy.settings())
    settings["policy"] = name_of(made_with)
    with (
        Dataset(out, "posterior", COLUMNS, settings, {"policy": made_with}) as dataset,
        Rollouts(
            rollouts, dataset.work, weights=weights, task_types=task_types, seed=seed, train_share=train_share
        ) as source,
    ):
        source.db.execute(DEMONSTRATIONS)
        sql = TURNS.replace("$valid_only", str(valid_only))
        head = {
            "policy_id": policy.policy_id,
            "samples": samples,
            "seed": seed,
            "policy": made_with,
            "prompt": of_prompt(template),
        }
        there = len(open_journal(journal, head))
        writer = _Writer(policy, template, samples, seed)
        asyncio.run(writer.write(source, sql, journal, concurrency))
        found = dict(_read(journal))
        refused: Counter[str] = Counter()
        tokens = [0, 0]
        for entry in found.values():
            refused.update(entry["refused"])
            tokens = [one + other for one, other in zip(tokens, entry["tokens"], strict=True)]
        if refused and all(entry["reason"] is None for entry in found.values()):
            causes = ", ".join(f"{cause} {n}" for cause, n in sorted(refused.items()))
            raise UserError(out, f"no reason passes (refused: {causes})", "name a model that follows instructions")
        left_out = 0
        for texts, row in visits(source, sql):
            turn = row["turn"]
            kept = found.get(place_of(row["state_key"], texts.actions[turn]), {})  # no entry without an action
            reason: str | None = kept.get("reason")
            if reason is None:
                left_out += 1
                continue
            said = template.response(reason, texts.actions[turn])
            dataset.add(
                row, prompt=template.messages(texts.state(turn)), completion=[{"role": "assistant", "content": said}]
            )
        facts: dict[str, Any] = {
            "turns asked": len(found),
            "reasons refused": dict(sorted(refused.items())),
            "tokens": {"prompt": tokens[0], "response": tokens[1]},
        }
        report = dataset.finish(source, facts, {"turns without a reason that passes": left_out})
    journal.unlink()
    return replace(report, note=f"{there:,} of {len(found):,} turns were there already") if there else report


def place_of(state_key: bytes, action: str) -> str:
    """The name of (s, a) in the journal."""
    return f"{state_key.hex()}:{blake2b(action.encode(), digest_size=8).hexdigest()}"


class _Writer:
    """Asks `policy` for the reasons and judges them; the arguments are those of `label`."""

    def __init__(self, policy: ChatModel, prompt: Prompt, samples: int, seed: int) -> None:
        self._policy, self._prompt, self._samples, self._seed = policy, prompt, samples, seed

    async def write(self, source: Rollouts, sql: str, journal: Path, concurrency: int) -> None:
        """Append to `journal` every (s, a) of `sql` with an action that is not in it, and close the policy."""
        done = {place for place, _ in _read(journal)}

        def new() -> Iterator[tuple[Texts, int, str]]:
            for texts, row in visits(source, sql):
                action = texts.actions[row["turn"]]
                place = place_of(row["state_key"], action)
                if action and place not in done:
                    done.add(place)
                    yield texts, row["turn"], place

        try:
            with journal.open("a", encoding="utf-8") as lines:
                await in_parallel(new(), lambda item: self._one(*item, lines), concurrency)
        finally:
            await self._policy.close()

    async def _one(self, texts: Texts, turn: int, place: str, lines: IO[str]) -> None:
        state, action, future = texts.state(turn), texts.actions[turn], texts.future(turn)
        messages = hindsight_messages(self._prompt, state, future, action)
        seed = int.from_bytes(blake2b(f"{place}{self._seed}".encode(), digest_size=4).digest(), "big") >> 1
        responses: list[Response] = []
        refused: Counter[str] = Counter()
        try:
            responses = await self._policy.reply(messages, n=self._samples, seed=seed)
        except PromptTooLong:
            refused["prompt too long"] += 1
        kept = None
        for response in responses:
            reason = " ".join(response.reason.split())
            if response.action.strip() != action.strip():
                cause: str | None = "another action"
            else:
                cause = leak(reason, state, action, future) if reason else "no reason"
            if cause is None:
                kept = reason
                break
            refused[cause] += 1
        # A server reads the prompt once for all samples, and bills it so.
        read = max((response.prompt_tokens for response in responses), default=0)
        tokens = [read, sum(response.response_tokens for response in responses)]
        entry = {"state": place, "asked": self._samples, "reason": kept, "refused": dict(refused), "tokens": tokens}
        lines.write(json.dumps(entry) + "\n")
        lines.flush()


def _read(journal: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with journal.open(encoding="utf-8") as lines:
        next(lines)  # the head
        for line in lines:
            entry = json.loads(line)
            yield entry["state"], entry

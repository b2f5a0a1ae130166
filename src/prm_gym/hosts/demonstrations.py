"""Conversations of supervised fine-tuning as token ids, and the ranges of the responses in them, for either host."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from prm_gym.prompts.chat import Tokenizer, turn_ids
from prm_gym.types import Message


class Demonstration(NamedTuple):
    ids: list[int]
    responses: list[tuple[int, int]]  # [first, after the last) of each response with its end of turn

    def labels(self, counted: str) -> list[int]:
        """The ids with a loss, -100 elsewhere: `all`, those from the first response on (`completion`), `responses`."""
        if counted == "all":
            return self.ids
        ranges = self.responses if counted == "responses" else [(self.responses[0][0], len(self.ids))]
        labels = [-100] * len(self.ids)
        for first, end in ranges:
            labels[first:end] = self.ids[first:end]
        return labels


def demonstrations(
    tokenizer: Tokenizer, prompt: Sequence[Message], completion: Sequence[Message]
) -> list[Demonstration]:
    """`prompt` and the assistant's turns in `completion`, each turn after the ids that the policy reads there.

    That is one sequence if every prompt extends the turn before it. A turn that is shown differently later on (without
    its reasoning, say) starts another sequence, so that each response still stands in one.
    """
    found: list[Demonstration] = []
    before = list(prompt)
    for message in completion:
        if message["role"] == "assistant":
            read, [written] = turn_ids(tokenizer, before, [message["content"]])
            here = (len(read), len(read) + len(written))
            if found and read[: len(found[-1].ids)] == found[-1].ids:
                found[-1] = Demonstration(read + written, [*found[-1].responses, here])
            else:
                found.append(Demonstration(read + written, [here]))
        before.append(message)
    return found

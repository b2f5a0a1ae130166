"""Conversations for supervised fine-tuning as token ids, with the ranges of the responses, for both hosts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from prm_gym.prompts.chat import Tokenizer, turn_ids
from prm_gym.types import Message


class Demonstration(NamedTuple):
    ids: list[int]
    responses: list[tuple[int, int]]  # [first, after the last) of each response with its end of turn

    def labels(self, counted: str) -> list[int]:
        """The ids with a loss, -100 elsewhere: `all`, from the first response on (`completion`), or `responses`."""
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
    """The assistant's turns in `completion`, each after the ids that the policy reads at that turn.

    This is a single sequence if every prompt extends the previous turn. If a template renders an earlier turn
    differently (for instance without its reasoning), a new sequence begins, so each response is in one sequence.
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

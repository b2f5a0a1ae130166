"""Steered Exploration (section 4.1): sample from the exploration prompt, score and train with the plain one.

With a given probability, both responses of a row are sampled from its `exploration_prompt`. Q scores them and DPO
trains on them after the plain prompt.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import Any

import numpy as np

from prm_gym.errors import UserError
from prm_gym.prompts.chat import prompt_ids


class Steering:
    """Maps the ids of a plain prompt and the training step to the ids to sample from.

    The draw depends on the ids, the step and the seed, so runs are repeatable. An exploration prompt of more than
    `max_length` ids is not used.
    """

    def __init__(
        self, rows: Iterable[dict[str, Any]], tokenizer: Any, *, probability: float, max_length: int, seed: int
    ) -> None:
        self._tokenizer, self._probability, self._max_length, self._seed = tokenizer, probability, max_length, seed
        self._exploration: dict[bytes, Any] = {}
        for row in rows:
            key = _key(prompt_ids(tokenizer, row["prompt"]))
            self._exploration[key] = row["exploration_prompt"] or row["prompt"]

    def __call__(self, ids: list[int], step: int) -> list[int]:
        key = _key(ids)
        draw = blake2b(key, digest_size=8, key=f"{self._seed},{step}".encode())
        if int.from_bytes(draw.digest(), "big") / 2**64 >= self._probability:
            return ids
        if key not in self._exploration:
            raise UserError("prompts", "a prompt without its row", "leave online DPO's prompts in one local data set")
        steered = prompt_ids(self._tokenizer, self._exploration[key])
        return steered if len(steered) <= self._max_length else ids


def _key(ids: list[int]) -> bytes:
    return blake2b(np.asarray(ids, dtype=np.int64).tobytes(), digest_size=16).digest()

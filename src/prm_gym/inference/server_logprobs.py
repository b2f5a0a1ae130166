"""The distribution that a server's log-probabilities belong to.

Servers differ, and no answer names the distribution. vLLM returns log softmax(logits) by default, at any
temperature. With `--logprobs-mode processed_logprobs`, and with other servers, the values belong to the distribution
sampled from, after temperature and top-p. `find_scale` therefore asks for one token twice, at temperatures 1 and 2:
differences between the log-probabilities of tokens halve if the temperature counts, and stay if it does not. Logits
(vLLM's `raw_logits`) are recognised because their exponentials sum to more than 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import Enum
from typing import Any

from prm_gym.inference.http_answers import RequestFailed
from prm_gym.inference.http_servers import Endpoints
from prm_gym.inference.server_answers import Reader

_TEMPERATURES = 1.0, 2.0  # most servers accept up to 2
_TOP = 5
_HALFWAY = 0.75  # between a spread that halves and one that stays
_LEAST_SPREAD = 0.2  # nats; a smaller one may be rounding of half-precision logits
_CLAMPED = -1000.0  # vLLM returns -9999 for a token removed by top-p


class Scale(Enum):
    """The distribution that a server's log-probabilities belong to."""

    RAW = "softmax(logits): temperature 1"
    SAMPLED = "the distribution sampled from"
    UNKNOWN = "unknown"


async def find_scale(endpoints: Endpoints, reader: Reader, fields: Mapping[str, Any], prompt: list[int]) -> Scale:
    """The scale of the servers' answers to requests with `fields` on /completions. Sends two requests of one token."""
    body = {**fields, "prompt": prompt, "n": 1, "max_tokens": 1, "top_p": 1.0, "logprobs": _TOP}
    body["return_tokens_as_token_ids"] = True  # vLLM; two tokens may have the same text

    def first_token(answer: dict[str, Any]) -> dict[str, float]:
        """The returned values of the likeliest tokens."""
        reader.read(answer, prompt, 1)
        values = answer["choices"][0]["logprobs"]["top_logprobs"][0]
        return {token: float(value) for token, value in values.items() if value > _CLAMPED}

    try:
        plain, flat = [
            await endpoints.post("/completions", {**body, "temperature": temperature}, first_token)
            for temperature in _TEMPERATURES
        ]
    except RequestFailed:
        return Scale.UNKNOWN
    both = plain.keys() & flat.keys()
    spread = _spread([plain[token] for token in both])
    if spread < _LEAST_SPREAD or any(sum(map(math.exp, values.values())) > 1.01 for values in (plain, flat)):
        return Scale.UNKNOWN
    return Scale.RAW if _spread([flat[token] for token in both]) > _HALFWAY * spread else Scale.SAMPLED


def by_temperature(returned: float | None, scale: Scale, temperature: float) -> tuple[float | None, float | None]:
    """(`Response.logprob`, `Response.sampling_logprob`), each None unless the `returned` sum gives it.

    `RAW` values never give the second, not even at temperature 1: the server may truncate the distribution (top-p) by
    its own defaults. At temperature 0 sampling is certain and the second is 0.
    """
    sampled = returned if scale is Scale.SAMPLED else None
    return returned if scale is Scale.RAW else None, 0.0 if temperature == 0 else sampled


def _spread(values: list[float]) -> float:
    return max(values, default=0.0) - min(values, default=0.0)

"""What the log-probabilities that a server returns are log-probabilities of, found by asking.

Servers differ. vLLM returns log softmax(logits) by default, whatever the temperature; with
`--logprobs-mode processed_logprobs`, and with other servers, they are of the distribution that was sampled from, after
temperature and top-p. No answer says which. So one token is asked for twice, at two temperatures far apart: values that
do not move are of temperature 1. Values that are no log-probabilities (vLLM's `raw_logits`) are told by their sum.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import Enum
from typing import Any

from prm_gym.policies.endpoints import Endpoints, RequestFailed

_FAR = (1.0, 100.0)  # at the second any model is close to uniform, if the temperature counts
_TOP = 5
_ALIKE = 0.1  # nats; half-precision logits differ by a few hundredths between two calls


class Scale(Enum):
    """The distribution of which a server returns log-probabilities."""

    RAW = "softmax(logits): temperature 1"
    SAMPLED = "the distribution that was sampled from"
    UNKNOWN = "neither can be told"


async def find_scale(endpoints: Endpoints, fields: Mapping[str, Any], prompt: list[int]) -> Scale:
    """Which of them the servers return for requests with `fields` on /completions; two requests of one token."""
    body = {**fields, "prompt": prompt, "n": 1, "max_tokens": 1, "logprobs": _TOP}
    try:
        plain, flat = [
            _largest(await endpoints.post("/completions", {**body, "temperature": temperature})) for temperature in _FAR
        ]
    except (RequestFailed, KeyError, TypeError, ValueError, IndexError):
        return Scale.UNKNOWN
    if plain > 0 or flat > 0:
        return Scale.UNKNOWN
    return Scale.RAW if abs(plain - flat) < _ALIKE else Scale.SAMPLED


def returned_logprob(choice: Mapping[str, Any]) -> float | None:
    """The sum over the tokens of one choice of /completions, None where the server gave no or not all values."""
    try:
        values = [float(value) for value in choice["logprobs"]["token_logprobs"]]
    except (KeyError, TypeError, ValueError):
        return None
    total = sum(values)
    return total if values and math.isfinite(total) else None


def by_temperature(returned: float | None, scale: Scale, temperature: float) -> tuple[float | None, float | None]:
    """(`Response.logprob`, `Response.sampling_logprob`) as far as they are known from what a server `returned`.

    A server may cut the distribution (top-p) without being told to, so of `RAW` values the second is unknown even at
    temperature 1. What is sampled at temperature 0 is certain.
    """
    sampled = returned if scale is Scale.SAMPLED else None
    return returned if scale is Scale.RAW else None, 0.0 if temperature == 0 else sampled


def _largest(answer: Mapping[str, Any]) -> float:
    """The largest of the values at the first token; positive if they are no log-probabilities."""
    values = [float(value) for value in answer["choices"][0]["logprobs"]["top_logprobs"][0].values()]
    return max(values) if sum(map(math.exp, values)) < 1.01 else math.inf

"""Reads answers of /completions and /chat/completions, and rejects those that do not fit the request.

Not every server gives the sampled ids and their log-probabilities. A `Reader` remembers which fields it has seen: a
later answer without one of them is damaged. The first answer without a field that was asked for may be damaged too, so
it is rejected, and the request sent again; a server that gives no such field is believed from its second answer on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from prm_gym import prompts
from prm_gym.errors import UserError
from prm_gym.types import Response


@dataclass(slots=True)
class Reader:
    """Converts answers of the servers of one model to responses. `asked` are the optional fields that requests name."""

    asked: frozenset[str] = frozenset()  # of "token_ids" and "logprobs"
    _given: set[str] = field(default_factory=set)  # in earlier answers
    _missed: set[str] = field(default_factory=set)  # in an earlier answer

    def read(
        self, answer: Mapping[str, Any], prompt: list[int] | None, most: int
    ) -> list[tuple[Response, float | None]]:
        """The responses in `answer`, at most `most`, each with the log-probability that the server returned.

        `prompt` holds the ids that were sent, None if messages were sent. Raises `ValueError` or another of the errors
        of `Endpoints.post` for unexpected content, `UserError` if the server read another number of prompt tokens.
        """
        usage = answer.get("usage") or {}
        read = usage.get("prompt_tokens")
        if prompt is not None and read is not None and read != len(prompt):
            raise UserError(
                "server",
                f"read {read} prompt tokens where {len(prompt)} were sent",
                "serve without adding special tokens and without truncating prompts",
            )
        choices = answer["choices"]
        if not 0 < len(choices) <= most:
            raise ValueError(f"{len(choices)} choices where {most} were asked for")
        for choice in choices:
            self._check(choice, prompt)
        share = int(usage.get("completion_tokens") or 0) // len(choices)
        prompt_tokens = int(read or len(prompt or ()))
        responses = [(_response(choice, prompt_tokens, share), _logprob(choice)) for choice in choices]
        self._given |= _given(choices[0])
        return responses

    def _check(self, choice: Mapping[str, Any], prompt: list[int] | None) -> None:
        missing = (self.asked | self._given) - _given(choice)
        if doubtful := missing & self._given or missing - self._missed:
            self._missed |= missing
            raise ValueError(f"no {', '.join(sorted(doubtful))}")
        if choice.get("prompt_token_ids") not in (None, prompt):
            raise ValueError("the answer belongs to another prompt")
        ids = choice.get("token_ids")
        if ids is None:
            return
        if not all(type(token) is int and token >= 0 for token in ids):
            raise ValueError("token_ids are not ids")
        values = (choice.get("logprobs") or {}).get("token_logprobs")
        if values is not None and len(values) != len(ids):
            raise ValueError(f"{len(values)} log-probabilities of {len(ids)} tokens")


def _given(choice: Mapping[str, Any]) -> set[str]:
    found = {"token_ids": choice.get("token_ids"), "logprobs": (choice.get("logprobs") or {}).get("token_logprobs")}
    return {name for name, value in found.items() if value is not None}


def _response(choice: Mapping[str, Any], prompt_tokens: int, share: int) -> Response:
    """One choice of either endpoint. `share` is its number of tokens if no ids are given."""
    text = choice["text"] if "text" in choice else choice["message"]["content"] or ""
    token_ids = choice.get("token_ids")
    reason, action = prompts.parse(text)
    return Response(
        text=text,
        reason=reason,
        action=action,
        prompt_tokens=prompt_tokens,
        response_tokens=share if token_ids is None else len(token_ids),
        token_ids=None if token_ids is None else tuple(token_ids),
        finished=choice.get("finish_reason") == "stop",
    )


def _logprob(choice: Mapping[str, Any]) -> float | None:
    """The sum over the tokens of one choice of /completions, None if values are missing."""
    try:
        values = [float(value) for value in choice["logprobs"]["token_logprobs"]]
    except (KeyError, TypeError, ValueError):
        return None
    total = sum(values)
    return total if values and math.isfinite(total) else None

"""Classification of a server's answers: a JSON object, a fault, or a refusal.

After a fault the same request may succeed later or on another server: status 408, 409, 425, 429 or any outside 200-299
and 400-499, a broken connection, a time-out, a body that is not a JSON object (an HTML page, JSON cut off in the
middle). Every other 4xx is a refusal and is raised: a wrong key, path or model as `UserError`, a prompt over the
context as `PromptTooLong`, anything else as `RequestFailed`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any

from prm_gym.errors import UserError
from prm_gym.inference.http_connections import TIME_OUT, UNREACHABLE, NoReply, Reply
from prm_gym.types import PromptTooLong

# Kinds of faults besides `http_connections.NO_REPLY`; a status is a kind of its own.
NOT_JSON, UNUSABLE = "not a JSON object", "not what was asked for"

_LONGEST_RETRY_AFTER = 120.0  # seconds
_MAY_PASS = {408, 409, 425, 429}
_OUTAGE = {502, 503, 504}
_NEVER_PASSES = {401: "the key is missing or wrong", 403: "access is refused", 404: "no such path or model"}
# The wordings of vLLM, SGLang, OpenAI, llama.cpp and text-generation-inference.
_TOO_LONG = re.compile(
    r"context_length_exceeded|maximum (context|model) length|max_model_len|context length|context size"
    r"|longer than the (maximum|model)|exceeds the (maximum|available)|prompt is too long"
    r"|inputs.*tokens.*must have less",
    re.IGNORECASE | re.DOTALL,
)


class RequestFailed(Exception):
    """A request failed finally: every try failed, or the server refused it."""


@dataclass(frozen=True, slots=True)
class Fault:
    """The failure of one try of a request that may be right."""

    kind: str  # the name for counting
    brief: str  # for the log, after the server's address
    said: str  # for the error after the last retry
    wait: float = 0.0  # seconds of the server's Retry-After
    outage: bool = False  # the server is down
    error: UserError | None = None  # raised after the last retry in place of `RequestFailed`


def read_reply(url: str, reply: Reply) -> dict[str, Any] | Fault:
    """The JSON object in `reply`, or a fault. Raises the errors of a refusal (see the module)."""
    status = reply.status
    if 200 <= status < 300:
        try:
            answer = json.loads(reply.content)
        except (ValueError, RecursionError):
            answer = None
        if isinstance(answer, dict):
            return answer
        said = f"the answer is not a JSON object ({reply.text()[:100]!r})"
        return Fault(NOT_JSON, "answers something else than a JSON object", said)
    text = reply.text()
    said = " ".join(text[:500].split())
    if status in _MAY_PASS or not 400 <= status < 500:
        problem = f"status {status}" + (f" ({said})" if said else "")
        return Fault(f"status {status}", f"answers {status}", problem, _retry_after(reply), status in _OUTAGE)
    if status in _NEVER_PASSES:
        raise UserError(url, f"{_NEVER_PASSES[status]} (status {status}: {said})", "correct it and run again")
    if _TOO_LONG.search(text):
        raise PromptTooLong(said)
    raise RequestFailed(f"{url}: status {status} ({said})")


def no_reply(error: NoReply) -> Fault:
    """The fault of a request that ended with `error`."""
    if error.kind == UNREACHABLE:
        return Fault(error.kind, "cannot be reached", str(error), outage=True)
    return Fault(error.kind, "does not answer" if error.kind == TIME_OUT else "breaks off its answer", str(error))


def _retry_after(reply: Reply) -> float:
    """Seconds that the header asks for: a number or a date (RFC 9110, section 10.2.3)."""
    said = reply.headers.get("retry-after", "")
    try:
        seconds = float(said)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(said) - datetime.now(timezone.utc)).total_seconds()
        except (TypeError, ValueError, OverflowError):
            return 0.0
    return min(seconds, _LONGEST_RETRY_AFTER) if seconds > 0 else 0.0  # 0 for NaN, too

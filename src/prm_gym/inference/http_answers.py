"""Classification of a server's answers: a JSON object, a fault, or a refusal.

After a fault the same request may succeed later or on another server: status 408, 409, 425, 429 or any outside 200-299
and 400-499, a broken connection, a time-out, a body that is not a JSON object (an HTML page, JSON cut off in the
middle). Every other 4xx is a refusal and is raised: a wrong key, path or model as `UserError`, a prompt over the
context as `PromptTooLong`, anything else as `RequestFailed`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from prm_gym.errors import UserError
from prm_gym.types import PromptTooLong

if TYPE_CHECKING:
    import httpx

# Kinds of faults; a status is a kind of its own.
UNREACHABLE, TIME_OUT, BROKEN = NO_REPLY = "unreachable", "time-out", "broken connection"
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


def read_reply(url: str, reply: httpx.Response) -> dict[str, Any] | Fault:
    """The JSON object in `reply`, or a fault. Raises the errors of a refusal (see the module)."""
    status = reply.status_code
    if reply.is_success:
        try:
            answer = reply.json()
        except (ValueError, RecursionError):
            answer = None
        if isinstance(answer, dict):
            return answer
        said = f"the answer is not a JSON object ({reply.text[:100]!r})"
        return Fault(NOT_JSON, "answers something else than a JSON object", said)
    said = " ".join(reply.text[:500].split())
    if status in _MAY_PASS or not 400 <= status < 500:
        problem = f"status {status}" + (f" ({said})" if said else "")
        return Fault(f"status {status}", f"answers {status}", problem, _retry_after(reply), status in _OUTAGE)
    if status in _NEVER_PASSES:
        raise UserError(url, f"{_NEVER_PASSES[status]} (status {status}: {said})", "correct it and run again")
    if _TOO_LONG.search(reply.text):
        raise PromptTooLong(said)
    raise RequestFailed(f"{url}: status {status} ({said})")


def no_reply(error: httpx.RequestError) -> Fault:
    """The fault of a request that ended with `error`."""
    import httpx

    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return Fault(UNREACHABLE, "cannot be reached", name(error), outage=True)
    if isinstance(error, httpx.TimeoutException):
        return Fault(TIME_OUT, "does not answer", name(error))
    return Fault(BROKEN, "breaks off its answer", name(error))


def name(error: Exception) -> str:
    """The type and the message of `error`."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _retry_after(reply: httpx.Response) -> float:
    """Seconds that the header asks for: a number or a date (RFC 9110, section 10.2.3)."""
    said = reply.headers.get("retry-after", "")
    try:
        seconds = float(said)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(said) - datetime.now(timezone.utc)).total_seconds()
        except (TypeError, ValueError):
            return 0.0
    return min(max(seconds, 0.0), _LONGEST_RETRY_AFTER)

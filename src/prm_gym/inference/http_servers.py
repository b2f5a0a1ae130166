"""JSON requests to one or several HTTP servers that serve the same model: balanced, retried, never unbounded.

Each request goes to the least busy server in service. A server that refuses connections, times out or answers 502-504
is taken out for a while (twice `backoff`, doubled each time up to 30 s) and asked again by the next request after that.
Whatever may pass (those, broken connections, 408, 429, other 5xx) is tried again with exponential back-off and jitter,
and no sooner than a Retry-After says; each such wait is logged at the level INFO. What cannot pass is raised: a wrong
key, path or model as `UserError`, a prompt over the context as `PromptTooLong`, all else as `RequestFailed`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import re
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from prm_gym.errors import UserError, check_range
from prm_gym.types import PromptTooLong

if TYPE_CHECKING:
    import httpx

_log = logging.getLogger(__name__)
_LONGEST_WAIT = 30.0  # seconds, between tries and out of service
_LONGEST_RETRY_AFTER = 120.0
_MAY_PASS = {408, 409, 425, 429}
_OUT_OF_SERVICE = {502, 503, 504}
_NEVER_PASSES = {401: "the key is missing or wrong", 403: "access is refused", 404: "no such path or model"}
# vLLM, SGLang, OpenAI, llama.cpp and text-generation-inference each say it in words of their own.
_TOO_LONG = re.compile(
    r"context_length_exceeded|maximum (context|model) length|max_model_len|context length|context size"
    r"|longer than the (maximum|model)|exceeds the (maximum|available)|prompt is too long"
    r"|inputs.*tokens.*must have less",
    re.IGNORECASE | re.DOTALL,
)


# Of an entry of GET /models: vLLM and SGLang tell the first three, llama.cpp the last. The rest changes with the clock.
_TOLD = ("root", "parent", "max_model_len", "meta")


@dataclass(frozen=True, slots=True)
class _Problem:
    """Why a try failed: for the error, in a few words for the log, and the seconds that the server wants to be left
    alone.
    """

    said: str
    brief: str
    wait: float = 0.0


class RequestFailed(Exception):
    """A request failed for good: every try failed, or the server refused it for a reason of its own."""


@dataclass(slots=True)
class _Endpoint:
    url: str
    busy: int = 0
    served: int = 0
    failures: int = 0  # in a row
    out_until: float = 0.0  # time.monotonic()
    idle: list[httpx.AsyncClient] = field(default_factory=list)


class Endpoints:
    """The servers at `base_urls`.

    Parameters
    ----------
    base_urls: one or more, such as "http://localhost:8000/v1".
    concurrency: requests under way at once, over all servers.
    timeout: seconds until a server that does not answer is given up.
    retries: how often a request is tried again.
    backoff: seconds before the first retry; doubled for each further one, shortened at random by up to a half.
    api_key_env: name of the environment variable that holds the key; the key itself is kept nowhere else.

    Raises `UserError` for no or malformed URLs, an unset variable, or when httpx is not installed.
    """

    def __init__(
        self,
        base_urls: str | Sequence[str],
        *,
        concurrency: int = 256,
        timeout: float = 300.0,
        retries: int = 6,
        backoff: float = 0.5,
        api_key_env: str | None = None,
    ) -> None:
        if find_spec("httpx") is None:
            raise UserError("httpx", "is not installed", 'pip install "prm-gym[server]"')
        urls = [base_urls] if isinstance(base_urls, str) else list(base_urls)
        for url in urls:
            if not url.startswith(("http://", "https://")):
                raise UserError("base_urls", f"{url!r} is not an HTTP address", "say e.g. http://localhost:8000/v1")
        if not urls:
            raise UserError("base_urls", "there is none", "say e.g. http://localhost:8000/v1")
        if api_key_env is not None and not os.environ.get(api_key_env):
            raise UserError("api_key_env", f"the variable {api_key_env} is not set", "export it with the key")
        check_range("concurrency", concurrency, least=1)
        self._endpoints = [_Endpoint(url.rstrip("/")) for url in urls]
        self._concurrency, self._timeout = concurrency, timeout
        self._retries, self._backoff = retries, backoff
        self._api_key_env = api_key_env
        self._ssl: ssl.SSLContext | None = None
        self._slots: asyncio.Semaphore | None = None  # belongs to an event loop, so made in it

    async def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The JSON object that a server answers. Raises as the module says."""
        self._slots = self._slots or asyncio.Semaphore(self._concurrency)
        async with self._slots:
            for attempt in range(self._retries + 1):
                endpoint = await self._choose()
                answer = await self._try(endpoint, path, body)
                if not isinstance(answer, _Problem):
                    return answer
                problem = answer
                if attempt < self._retries:
                    delay = min(self._backoff * 2**attempt, _LONGEST_WAIT) * random.uniform(0.5, 1)
                    delay = max(delay, problem.wait)
                    number = f"retry {attempt + 1} of {self._retries}"
                    _log.info("server %s %s, %s in %.0f s", endpoint.url, problem.brief, number, delay)
                    await asyncio.sleep(delay)
        raise RequestFailed(f"{problem.said}, after {self._retries + 1} tries")

    async def served(self, model: str, path: str = "/models") -> dict[str, Any]:
        """What the servers tell of `model` at `path`: "max_model_len", its context length in tokens (the shortest), and
        the other facts of `_TOLD`, as a list where servers differ.

        Raises `UserError` unless some server answers and, where it lists its models, serves `model`.
        """
        import httpx

        problems, told = [], []
        for endpoint in self._endpoints:
            try:
                async with self._new_client(endpoint.url) as client:
                    reply = await client.get(endpoint.url + path, timeout=min(self._timeout, 10.0))
            except httpx.HTTPError as error:
                self._take_out(endpoint)
                problems.append(f"{endpoint.url} {_brief(error)} ({_name(error)})")
                continue
            served = _listed_models(reply)
            if served and model not in served:
                known = ", ".join(sorted(served)[:5])
                raise UserError(endpoint.url, f"serves no model {model!r}", f"name one of: {known}", field="model")
            told += [served[model]] if model in served else []
        if len(problems) == len(self._endpoints):
            raise UserError("base_urls", ", ".join(problems), "start the server, look into its log, or correct the URL")
        facts: dict[str, Any] = {}
        for name in _TOLD:
            values = sorted({json.dumps(of[name], sort_keys=True) for of in told if of.get(name)})
            if values:
                facts[name] = json.loads(values[0]) if len(values) == 1 else [json.loads(value) for value in values]
        if lengths := [of["max_model_len"] for of in told if of["max_model_len"]]:
            facts["max_model_len"] = min(lengths)
        return facts

    async def close(self) -> None:
        """Close the connections; a later request opens new ones."""
        self._slots = None
        for endpoint in self._endpoints:
            clients, endpoint.idle = endpoint.idle, []
            for client in clients:
                await client.aclose()

    async def _request(self, endpoint: _Endpoint, method: str, path: str, **options: Any) -> httpx.Response:
        """One request on a connection that nobody else uses: the pool inside an httpx client searches all of its
        connections several times for each request, which with 128 of them costs more than the request itself.
        """
        client = endpoint.idle.pop() if endpoint.idle else self._new_client(endpoint.url)
        try:
            return await client.request(method, endpoint.url + path, **options)
        finally:
            endpoint.idle.append(client)

    def _new_client(self, url: str) -> httpx.AsyncClient:
        import httpx

        if self._ssl is None and url.startswith("https://"):
            self._ssl = httpx.create_ssl_context()  # slow to make, so shared
        key = os.environ.get(self._api_key_env or "")
        return httpx.AsyncClient(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(self._timeout, connect=min(self._timeout, 10.0)),
            # Servers drop idle connections after 5 s (uvicorn): let go before they do.
            limits=httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=3.0),
            verify=self._ssl or False,
        )

    async def _choose(self) -> _Endpoint:
        while True:
            now = time.monotonic()
            in_service = [endpoint for endpoint in self._endpoints if endpoint.out_until <= now]
            if in_service:
                return min(in_service, key=lambda endpoint: (endpoint.busy, endpoint.served))
            await asyncio.sleep(min(endpoint.out_until for endpoint in self._endpoints) - now)

    async def _try(self, endpoint: _Endpoint, path: str, body: Mapping[str, Any]) -> dict[str, Any] | _Problem:
        """The answer, or what went wrong and may pass."""
        import httpx

        url = endpoint.url + path
        endpoint.busy += 1
        endpoint.served += 1
        try:
            reply = await self._request(endpoint, "POST", path, json=body)
        except httpx.TransportError as error:
            if isinstance(error, httpx.ConnectError | httpx.TimeoutException):
                self._take_out(endpoint)
            return _Problem(f"{url}: {_name(error)}", _brief(error))
        finally:
            endpoint.busy -= 1
        status = reply.status_code
        if status in _OUT_OF_SERVICE:
            self._take_out(endpoint)
            return _Problem(f"{url}: status {status}", f"answers {status}", self._retry_after(reply))
        endpoint.failures = 0
        if reply.is_success:
            return _object(url, reply)
        said = " ".join(reply.text[:500].split())
        if status in _MAY_PASS or status >= 500:
            return _Problem(f"{url}: status {status} ({said})", f"answers {status}", self._retry_after(reply))
        if status in _NEVER_PASSES:
            raise UserError(url, f"{_NEVER_PASSES[status]} (status {status}: {said})", "correct it and run again")
        if _TOO_LONG.search(reply.text):
            raise PromptTooLong(said)
        raise RequestFailed(f"{url}: status {status} ({said})")

    def _take_out(self, endpoint: _Endpoint) -> None:
        """Out of service for twice as long as the last time; at most once for all requests that fail together."""
        now = time.monotonic()
        if endpoint.out_until <= now:
            endpoint.failures += 1
            endpoint.out_until = now + min(2 * self._backoff * 2 ** (endpoint.failures - 1), _LONGEST_WAIT)

    def _retry_after(self, reply: httpx.Response) -> float:
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


def _object(url: str, reply: httpx.Response) -> dict[str, Any]:
    try:
        answer = reply.json()
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise RequestFailed(f"{url}: the answer is not a JSON object ({reply.text[:100]!r})")
    return answer


def _listed_models(reply: httpx.Response) -> dict[str, dict[str, Any]]:
    """The models that GET /models lists, with what it says of each; empty where the server has no such list."""
    try:
        entries = reply.json()["data"] if reply.is_success else []
        length = "max_model_len"
        return {str(entry["id"]): {**entry, length: int(entry.get(length) or 0)} for entry in entries}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _brief(error: Exception) -> str:
    import httpx

    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return "cannot be reached"
    return "does not answer" if isinstance(error, httpx.TimeoutException) else "breaks off its answer"


def _name(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__

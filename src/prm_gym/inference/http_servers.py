"""JSON requests to one or several HTTP servers of the same model, with load balancing and bounded retries.

Each request goes to the least busy server in service. After a fault (see `http_answers`) it is retried with exponential
back-off and jitter, on another server if there is one. The same server is asked again only after its Retry-After. An
answer with unexpected content is a fault too.

A server that is down (refuses connections, answers 502-504), hangs, or gives three faults in a row is taken out of
service for a while (twice `backoff`, doubled each time up to 30 s). The next request after that tries it again. While
it is down, retries are not counted for `outage` seconds, so that a restart ends no request.

Each fault is logged at the level INFO; the record's attribute `fault` names its kind.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, TypeVar
from urllib.parse import urlsplit

from prm_gym.errors import UserError, check_range
from prm_gym.inference.http_answers import UNUSABLE, Fault, RequestFailed, no_reply, read_reply
from prm_gym.inference.http_connections import (
    NO_REPLY,
    TIME_OUT,
    Connection,
    HttpxConnection,
    NoReply,
    PlainConnection,
    name,
)

_log = logging.getLogger(__name__)
OUTAGE = 300.0  # seconds
_LONGEST_WAIT = 30.0  # seconds, between tries and out of service
_FAULTS_IN_A_ROW = 3  # until a server that answers is taken out of service
_MODEL_TRIES = 3  # for the list of models

# Fields of an entry of GET /models: vLLM and SGLang give the first three, llama.cpp the last. Others change with time.
_FACTS = ("root", "parent", "max_model_len", "meta")

T = TypeVar("T")


@dataclass(slots=True)
class _Endpoint:
    url: str
    busy: int = 0
    served: int = 0
    faults: int = 0  # in a row
    outs: int = 0  # how often it was taken out of service, in a row
    out_until: float = 0.0  # time.monotonic()
    idle: list[Connection] = field(default_factory=list)


class Endpoints:
    """The servers at `base_urls`.

    Parameters
    ----------
    base_urls: one or more, such as "http://localhost:8000/v1".
    concurrency: concurrent requests to all servers together.
    timeout: seconds to wait for an answer.
    retries: retries of a request.
    outage: seconds for which servers may be down without their retries being counted.
    backoff: seconds before the first retry; doubled for each further one, shortened at random by up to a half.
    api_key_env: name of the environment variable that holds the key; the key is stored nowhere else.

    Raises `UserError` for no or malformed URLs, an unset variable, or an https URL when httpx is not installed.
    """

    def __init__(
        self,
        base_urls: str | Sequence[str],
        *,
        concurrency: int = 256,
        timeout: float = 300.0,
        retries: int = 6,
        outage: float = OUTAGE,
        backoff: float = 0.5,
        api_key_env: str | None = None,
    ) -> None:
        urls = [base_urls] if isinstance(base_urls, str) else list(base_urls)
        for url in urls:
            if not _is_address(url):
                raise UserError("base_urls", f"{url!r} is not an HTTP address", "say e.g. http://localhost:8000/v1")
            if url.startswith("https://") and find_spec("httpx") is None:
                raise UserError("httpx", "is not installed", 'pip install "prm-gym[server]"')
        if not urls:
            raise UserError("base_urls", "there is none", "say e.g. http://localhost:8000/v1")
        if api_key_env is not None and not os.environ.get(api_key_env):
            raise UserError("api_key_env", f"the variable {api_key_env} is not set", "export it with the key")
        check_range("concurrency", concurrency, least=1)
        self._endpoints = [_Endpoint(url.rstrip("/")) for url in urls]
        self._concurrency, self._timeout = concurrency, timeout
        self._retries, self._outage, self._backoff = retries, outage, backoff
        self._api_key_env = api_key_env
        self._ssl: ssl.SSLContext | None = None
        self._semaphore: asyncio.Semaphore | None = None  # belongs to an event loop, so it is created there

    async def post(self, path: str, body: Mapping[str, Any], read: Callable[[dict[str, Any]], T]) -> T:
        """Post `body`, and return the result of `read` on the JSON object of the answer.

        If the answer's content is unexpected, `read` raises `LookupError`, `TypeError`, `ValueError`, `AttributeError`
        or `ArithmeticError`, or a `UserError` if the server is of the wrong kind; each is a fault. Raises
        `RequestFailed`, or that `UserError`, after the last retry, and the errors of `http_answers` for a refusal.
        """
        self._semaphore = self._semaphore or asyncio.Semaphore(self._concurrency)
        async with self._semaphore:
            content = json.dumps(body, separators=(",", ":")).encode()
            begun, tries, left_alone = time.monotonic(), 0, dict[str, float]()
            while True:
                endpoint = await self._choose(left_alone)
                answer = await self._try(endpoint, path, content, read)
                if not isinstance(answer, Fault):
                    return answer
                now = time.monotonic()
                if not (answer.outage and now - begun < self._outage):
                    tries += 1
                if tries > self._retries:
                    _log_fault(endpoint, answer, "given up")
                    raise answer.error or RequestFailed(f"{endpoint.url}{path}: {answer.said}, after {tries} tries")
                delay = self._delay(tries)
                asked = max(delay, answer.wait)
                left_alone[endpoint.url] = now + asked
                seconds = asked if len(self._endpoints) == 1 else delay
                _log_fault(endpoint, answer, f"retry {max(tries, 1)} of {self._retries} in {seconds:.0f} s")
                await asyncio.sleep(delay)

    async def served(self, model: str, path: str = "/models") -> dict[str, Any]:
        """What the servers report of `model` at `path`: the shortest "max_model_len" (context length in tokens), and
        the other facts of `_FACTS`, as a list if servers differ.

        Raises `UserError` if no server answers, or if one that lists its models does not serve `model`.
        """
        problems, reported = [], []
        for endpoint in self._endpoints:
            models = await self._models(endpoint, path)
            if isinstance(models, Fault):
                problems.append(f"{endpoint.url} {models.brief} ({models.said})")
                continue
            if models and model not in models:
                known = ", ".join(sorted(models)[:5])
                raise UserError(endpoint.url, f"serves no model {model!r}", f"name one of: {known}", field="model")
            reported += [models[model]] if model in models else []
        if len(problems) == len(self._endpoints):
            raise UserError("base_urls", ", ".join(problems), "start the server, look into its log, or correct the URL")
        facts: dict[str, Any] = {}
        for fact in _FACTS:
            values = sorted({json.dumps(of[fact], sort_keys=True) for of in reported if of.get(fact)})
            if values:
                facts[fact] = json.loads(values[0]) if len(values) == 1 else [json.loads(value) for value in values]
        if lengths := [of["max_model_len"] for of in reported if of["max_model_len"]]:
            facts["max_model_len"] = min(lengths)
        return facts

    async def close(self) -> None:
        """Close the connections; a later request opens new ones."""
        self._semaphore = None
        for endpoint in self._endpoints:
            connections, endpoint.idle = endpoint.idle, []
            for connection in connections:
                await connection.close()

    def _connection(self, url: str, timeout: float) -> Connection:
        key = os.environ.get(self._api_key_env or "")
        headers = {"authorization": f"Bearer {key}"} if key else {}
        if not url.startswith("https://"):
            return PlainConnection(url, headers, timeout)
        import httpx

        self._ssl = self._ssl or httpx.create_ssl_context()  # slow to create, so shared
        return HttpxConnection(url, headers, timeout, self._ssl)

    async def _choose(self, left_alone: Mapping[str, float]) -> _Endpoint:
        """The least busy server in service; servers without a fault in this request come first. `left_alone` holds the
        earliest times (`time.monotonic`) at which this request may go to a server again.
        """
        while True:
            now = time.monotonic()
            ready = [max(each.out_until, left_alone.get(each.url, 0.0)) for each in self._endpoints]
            in_service = [each for each, at in zip(self._endpoints, ready, strict=True) if at <= now]
            if in_service:
                return min(in_service, key=lambda each: (left_alone.get(each.url, 0.0), each.busy, each.served))
            await asyncio.sleep(min(ready) - now)

    async def _try(self, endpoint: _Endpoint, path: str, body: bytes, read: Callable[[dict[str, Any]], T]) -> T | Fault:
        """The result of `read` on the answer, or a fault."""
        connection = endpoint.idle.pop() if endpoint.idle else self._connection(endpoint.url, self._timeout)
        endpoint.busy += 1
        endpoint.served += 1
        try:
            reply = await connection.request("POST", path, body)
        except NoReply as error:
            fault = no_reply(error)
        else:
            answer = read_reply(endpoint.url + path, reply)
            result = answer if isinstance(answer, Fault) else _read(answer, read)
            if not isinstance(result, Fault):
                endpoint.faults = endpoint.outs = 0
                return result
            fault = result
        finally:
            endpoint.busy -= 1
            endpoint.idle.append(connection)
        endpoint.faults += 1
        if fault.outage or fault.kind == TIME_OUT or endpoint.faults >= _FAULTS_IN_A_ROW:
            self._take_out(endpoint)
        return fault

    def _take_out(self, endpoint: _Endpoint) -> None:
        """Take a server out of service, twice as long as the last time; once for all requests that fail together."""
        now = time.monotonic()
        if endpoint.out_until <= now:
            endpoint.out_until = now + min(2 * self._backoff * 2**endpoint.outs, _LONGEST_WAIT)
            endpoint.outs += 1

    async def _models(self, endpoint: _Endpoint, path: str) -> dict[str, dict[str, Any]] | Fault:
        """The models that GET `path` lists, with their fields. Empty if the server has no such list, a fault if it is
        down or hangs. Connections are not kept, because the caller may leave the event loop.
        """
        for tries in range(1, _MODEL_TRIES + 1):
            connection = self._connection(endpoint.url, min(self._timeout, 10.0))
            try:
                answer = read_reply(endpoint.url + path, await connection.request("GET", path))
                result = answer if isinstance(answer, Fault) else _read(answer, _listed_models)
            except NoReply as error:
                result = no_reply(error)
            except (UserError, RequestFailed):  # some servers have no such list
                return {}
            finally:
                await connection.close()
            if not isinstance(result, Fault):
                return result
            fault = result
            if fault.outage:
                break
            if tries < _MODEL_TRIES:
                _log_fault(endpoint, fault, f"retry {tries} of {_MODEL_TRIES - 1}")
                await asyncio.sleep(self._delay(tries))
        if not fault.outage and fault.kind not in NO_REPLY:
            return {}
        self._take_out(endpoint)
        return fault

    def _delay(self, tries: int) -> float:
        """Seconds to wait after `tries` failed tries."""
        return min(self._backoff * 2.0 ** max(tries - 1, 0), _LONGEST_WAIT) * random.uniform(0.5, 1)


def _is_address(url: str) -> bool:
    try:
        address = urlsplit(url)
        return url.startswith(("http://", "https://")) and bool(address.hostname) and address.port != 0
    except ValueError:  # the port is no number, or too large
        return False


def _read(answer: dict[str, Any], read: Callable[[dict[str, Any]], T]) -> T | Fault:
    """The result of `read` on `answer`, or the fault that it finds."""
    brief = "answers something else than was asked for"
    try:
        return read(answer)
    except UserError as error:
        return Fault(UNUSABLE, brief, str(error), error=error)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        return Fault(UNUSABLE, brief, f"the answer is not usable ({name(error)})")


def _listed_models(answer: dict[str, Any]) -> dict[str, dict[str, Any]]:
    length = "max_model_len"
    return {str(entry["id"]): {**entry, length: int(entry.get(length) or 0)} for entry in answer["data"]}


def _log_fault(endpoint: _Endpoint, fault: Fault, what: str) -> None:
    _log.info("server %s %s, %s", endpoint.url, fault.brief, what, extra={"fault": fault.kind})

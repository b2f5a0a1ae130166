"""Connections to HTTP servers: one request at a time on each, kept open between requests.

An `http://` server gets a plain asyncio connection (HTTP/1.1, RFC 9112), which takes a tenth of the CPU time per
request of an HTTP library. Such requests never pass through a proxy. An `https://` server is reached through httpx,
which knows certificates and proxies.
"""

from __future__ import annotations

import asyncio
import time
from asyncio import StreamReader, StreamWriter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import ssl

# Why there is no reply; these are kinds of faults, see `http_answers`.
UNREACHABLE, TIME_OUT, BROKEN = NO_REPLY = "unreachable", "time-out", "broken connection"

_IDLE = 3.0  # seconds: servers close idle connections after 5 s (uvicorn); the client closes them earlier
_LONGEST_CONNECT = 10.0  # seconds
_WITHOUT_BODY = {204, 304}


class NoReply(Exception):
    """There is no whole reply; `kind` is one of `NO_REPLY`."""

    def __init__(self, kind: str, error: Exception) -> None:
        super().__init__(name(error))
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply as received; the names of `headers` are in lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    def text(self) -> str:
        return self.content.decode("utf-8", "replace")


class Connection(Protocol):
    async def request(self, method: str, path: str, body: bytes = b"") -> Reply:
        """Send a request with a JSON body to `path` below the server's address. Raises `NoReply`."""
        ...

    async def close(self) -> None: ...


class PlainConnection:
    """A connection to `url`, an `http://` address. It is opened by the first request, and again if it was closed."""

    def __init__(self, url: str, headers: Mapping[str, str], timeout: float) -> None:
        address = urlsplit(url)
        self._host, self._port, self._prefix = address.hostname or "", address.port or 80, address.path
        sent = {"host": address.netloc.rpartition("@")[2], "accept-encoding": "identity", **headers}
        self._headers = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
        self._timeout = timeout
        self._streams: tuple[StreamReader, StreamWriter] | None = None
        self._used = 0.0  # time.monotonic()
        self._expired = False

    async def request(self, method: str, path: str, body: bytes = b"") -> Reply:
        reader, writer = await self._open()
        timer = asyncio.get_running_loop().call_later(self._timeout, self._expire, writer)
        kept = False
        try:
            line = f"{method} {self._prefix}{path} HTTP/1.1\r\n{self._headers}"
            about = f"content-type: application/json\r\ncontent-length: {len(body)}\r\n" if body else ""
            writer.write(f"{line}{about}\r\n".encode("latin-1") + body)
            reply, kept = await _read_reply(reader)
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
            if self._expired:
                raise NoReply(TIME_OUT, TimeoutError(f"no answer in {self._timeout:g} s")) from None
            raise NoReply(BROKEN, error) from error
        finally:
            timer.cancel()
            if kept:
                self._used = time.monotonic()
            else:
                await self.close()
        return reply

    async def close(self) -> None:
        if self._streams:
            self._streams[1].close()
            self._streams = None

    async def _open(self) -> tuple[StreamReader, StreamWriter]:
        if self._streams:
            reader, writer = self._streams
            if time.monotonic() - self._used < _IDLE and not reader.at_eof() and not writer.is_closing():
                return self._streams
            await self.close()
        self._expired = False
        opening = asyncio.open_connection(self._host, self._port)
        try:
            self._streams = await asyncio.wait_for(opening, min(self._timeout, _LONGEST_CONNECT))
        except (OSError, ValueError, asyncio.TimeoutError) as error:
            raise NoReply(UNREACHABLE, error) from error
        return self._streams

    def _expire(self, writer: StreamWriter) -> None:
        self._expired = True
        writer.transport.abort()


class HttpxConnection:
    """A connection to `url` through httpx."""

    def __init__(self, url: str, headers: Mapping[str, str], timeout: float, context: ssl.SSLContext | bool) -> None:
        import httpx

        self._url = url
        self._client = httpx.AsyncClient(
            headers=headers,
            timeout=httpx.Timeout(timeout, connect=min(timeout, _LONGEST_CONNECT)),
            # The pool of a client searches all connections several times per request, so each client has one.
            limits=httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=_IDLE),
            verify=context,
        )

    async def request(self, method: str, path: str, body: bytes = b"") -> Reply:
        import httpx

        about = {"content-type": "application/json"} if body else {}
        try:
            reply = await self._client.request(method, self._url + path, content=body or None, headers=about)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise NoReply(UNREACHABLE, error) from error
        except httpx.TimeoutException as error:
            raise NoReply(TIME_OUT, error) from error
        except httpx.RequestError as error:
            raise NoReply(BROKEN, error) from error
        return Reply(reply.status_code, reply.headers, reply.content)

    async def close(self) -> None:
        await self._client.aclose()


async def _read_reply(reader: StreamReader) -> tuple[Reply, bool]:
    """A reply, and whether the connection can be used again. Raises `ValueError` for anything but HTTP/1."""
    status = 100
    while status < 200:  # replies of 100-199 announce another one
        first, *lines = (await reader.readuntil(b"\r\n\r\n"))[:-4].decode("latin-1").split("\r\n")
        version, code = first.split(" ", 2)[:2]
        if not version.startswith("HTTP/1."):
            raise ValueError(f"not an HTTP reply: {first[:100]!r}")
        status = int(code)
    headers = {}
    for line in lines:
        key, colon, value = line.partition(":")
        if not colon:
            raise ValueError(f"not an HTTP header: {line[:100]!r}")
        headers[key.lower()] = value.strip()
    kept = version == "HTTP/1.1" and "close" not in headers.get("connection", "").lower()
    if status in _WITHOUT_BODY:
        content = b""
    elif "chunked" in headers.get("transfer-encoding", "").lower():
        content = await _read_chunks(reader)
    elif length := headers.get("content-length"):
        content = await reader.readexactly(int(length))
    else:
        content, kept = await reader.read(), False
    return Reply(status, headers, content), kept


async def _read_chunks(reader: StreamReader) -> bytes:
    """A body in the coding `chunked` (RFC 9112, section 7.1); its extensions and trailers are skipped."""
    chunks = []
    while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
        chunks.append(await reader.readexactly(size))
        await reader.readexactly(2)
    while await reader.readuntil(b"\r\n") != b"\r\n":
        pass
    return b"".join(chunks)


def name(error: Exception) -> str:
    """The type and the message of `error`."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__

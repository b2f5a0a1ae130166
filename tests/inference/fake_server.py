"""An HTTP server in the test's own event loop that records every request and answers by a function."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Request:
    path: str
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass
class Reply:
    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    drop: bool = False  # close the connection without an answer


Handler = Callable[[Request], Awaitable[Reply]]


class FakeServer:
    """`async with FakeServer(handler) as server`: `server.url` is its base URL, `server.requests` what was posted."""

    def __init__(
        self,
        handler: Handler,
        *,
        port: int = 0,
        models: list[str] | None = None,
        context: int = 0,
        told: dict[str, Any] | None = None,
    ):
        self.handler, self.port, self.models = handler, port, models or ["tiny"]
        self.told = {"max_model_len": context, **(told or {})}  # of each model
        self.requests: list[Request] = []
        self.under_way = self.most_under_way = 0

    async def __aenter__(self) -> FakeServer:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self.server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        return self

    async def __aexit__(self, *error: object) -> None:
        self.server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                method, path, _ = line.decode().split()
                headers = {}
                while (line := await reader.readline()).strip():
                    name, _, value = line.decode().partition(":")
                    headers[name.lower()] = value.strip()
                content = await reader.readexactly(int(headers.get("content-length", 0)))
                if method == "GET":
                    reply = Reply(body={"data": [{"id": name, **self.told} for name in self.models]})
                else:
                    request = Request(path, headers, json.loads(content))
                    self.requests.append(request)
                    self.under_way += 1
                    self.most_under_way = max(self.most_under_way, self.under_way)
                    reply = await self.handler(request)
                    self.under_way -= 1
                if reply.drop:
                    break
                text = reply.body if isinstance(reply.body, str) else json.dumps(reply.body)
                head = {"content-length": str(len(text.encode())), "content-type": "application/json", **reply.headers}
                lines = [f"HTTP/1.1 {reply.status} x", *(f"{name}: {value}" for name, value in head.items())]
                writer.write("\r\n".join([*lines, "", text]).encode())
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


def completion(request: Request, text: str = "REASON: r\nACTION: look", **choice: Any) -> Reply:
    """What vLLM answers: to ids with ids, to messages with a message."""
    n = request.body.get("n", 1)
    said = {"text": text} if request.path.endswith("/v1/completions") else {"message": {"content": text}}
    choices = [{"index": i, **said, "finish_reason": "stop", **choice} for i in range(n)]
    prompt = request.body.get("prompt", [0] * 7)
    usage = {"prompt_tokens": len(prompt), "completion_tokens": 5 * n}
    return Reply(body={"choices": choices, "usage": usage})

"""ASGI middleware that refuses long messages, whatever server runs the application."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import nullcontext, suppress
from typing import Any

Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]

_TOO_BIG = 1009  # of a WebSocket's close, RFC 6455


class _TooLong(Exception):
    pass


class MessageLimit:
    """Answers 413 to an HTTP body over `most` bytes, and closes a WebSocket that sends a longer message."""

    def __init__(self, app: Callable[[Event, Receive, Send], Awaitable[None]], most: int) -> None:
        self._app, self._most = app, most

    async def __call__(self, scope: Event, receive: Receive, send: Send) -> None:
        body, begun = 0, False

        async def limited() -> Event:
            nonlocal body
            event = await receive()
            if event["type"] == "http.request":
                body += len(event.get("body", b""))
                if body > self._most:
                    raise _TooLong
            elif event["type"] == "websocket.receive":
                message = event.get("bytes") or (event.get("text") or "").encode()
                if len(message) > self._most:
                    await send({"type": "websocket.close", "code": _TOO_BIG})
                    return {"type": "websocket.disconnect", "code": _TOO_BIG}
            return event

        async def noted(event: Event) -> None:
            nonlocal begun
            begun = begun or event["type"] == "http.response.start"
            # OpenEnv closes a socket whose client has gone: no error
            with suppress(OSError) if event["type"] == "websocket.close" else nullcontext():
                await send(event)

        declared = dict(scope.get("headers") or ()).get(b"content-length", b"0")
        try:
            if not declared.isdigit() or int(declared) > self._most:
                raise _TooLong
            await self._app(scope, limited, noted)
        except _TooLong:
            if not begun:
                await send({"type": "http.response.start", "status": 413, "headers": []})
                await send({"type": "http.response.body", "body": b"the body is too long"})

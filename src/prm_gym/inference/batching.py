"""Dynamic batching: many `await batcher.submit(item)` calls become few calls of one function over a list of items.

The function runs in a thread of its own, so the event loop goes on stepping environments. When the thread is free it
takes the waiting items, oldest first, without waiting for a full batch. If fewer items wait than the last batch had, it
lingers for at most a tenth of that batch's time: callers that were just answered usually submit again at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_LINGER = 0.1  # share of the last batch's time
_POLL_SECONDS = 0.001


class Batcher(Generic[Item, Result]):
    """`run(items)` returns one result per item, in order; its exception is raised for every item of that batch.

    Concurrent calls of `submit` must come from one event loop.
    """

    def __init__(self, run: Callable[[list[Item]], list[Result]], *, max_batch: int, name: str) -> None:
        self._run = run
        self._max_batch = max_batch
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._waiting: deque[tuple[Item, asyncio.Future[Result]]] = deque()
        self._worker: asyncio.Task[None] | None = None

    async def submit(self, item: Item) -> Result:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        self._waiting.append((item, future))
        if self._worker is None or self._worker.done():
            self._worker = loop.create_task(self._work())
        return await future

    async def close(self) -> None:
        """Wait for pending items, then end the thread."""
        if self._worker is not None:
            await asyncio.wait([self._worker])
        self._thread.shutdown()

    async def _work(self) -> None:
        seconds, expected = 0.0, 0
        while True:
            await self._linger(perf_counter() + _LINGER * seconds, min(expected, self._max_batch))
            batch = self._take()
            if not batch:
                return
            started = perf_counter()
            try:
                results = await asyncio.get_running_loop().run_in_executor(
                    self._thread, self._run, [item for item, _ in batch]
                )
            except Exception as error:  # raised in the callers of this batch; the next batch is not affected
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
            else:
                for (_, future), result in zip(batch, results, strict=True):
                    if not future.done():
                        future.set_result(result)
            seconds, expected = perf_counter() - started, len(batch)

    async def _linger(self, deadline: float, enough: int) -> None:
        await asyncio.sleep(0)  # callers that are ready to run may submit first
        while len(self._waiting) < enough and perf_counter() < deadline:
            await asyncio.sleep(_POLL_SECONDS)

    def _take(self) -> list[tuple[Item, asyncio.Future[Result]]]:
        batch: list[tuple[Item, asyncio.Future[Result]]] = []
        while self._waiting and len(batch) < self._max_batch:
            item, future = self._waiting.popleft()
            if not future.done():  # its caller was cancelled
                batch.append((item, future))
        return batch

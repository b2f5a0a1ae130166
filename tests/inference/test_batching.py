"""Dynamic batching of awaited calls."""

from __future__ import annotations

import asyncio

import pytest

from prm_gym.inference.batching import Batcher


def test_waiting_items_go_together_and_results_find_their_callers():
    batches = []

    def double(items):
        batches.append(list(items))
        return [2 * item for item in items]

    async def main():
        batcher = Batcher(double, max_batch=4, name="test")
        results = await asyncio.gather(*(batcher.submit(i) for i in range(10)))
        await batcher.close()
        return results

    assert asyncio.run(main()) == [2 * i for i in range(10)]
    assert batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_callers_that_come_back_share_a_batch_again(monkeypatch):
    """By a clock of its own, which a busy machine does not stop: a batch takes a second, a look at it a millisecond."""
    sizes, clock = [], [0.0]

    def now():
        clock[0] += 0.001
        return clock[0]

    def slow(items):
        sizes.append(len(items))
        clock[0] += 1.0
        return items

    monkeypatch.setattr("prm_gym.inference.batching.perf_counter", now)

    async def main():
        batcher = Batcher(slow, max_batch=8, name="test")

        async def caller(i):
            for _ in range(3):
                await batcher.submit(i)
                await asyncio.sleep(0.0002 * i)  # the environment's step

        await asyncio.gather(*map(caller, range(8)))
        await batcher.close()

    asyncio.run(main())
    assert sizes == [8, 8, 8]


def test_an_exception_reaches_its_batch_alone():
    def fails_on_zero(items):
        return [1 / item for item in items]

    async def main():
        batcher = Batcher(fails_on_zero, max_batch=2, name="test")
        results = await asyncio.gather(*(batcher.submit(i) for i in (0, 1, 2, 4)), return_exceptions=True)
        await batcher.close()
        return results

    first, second, *others = asyncio.run(main())
    assert isinstance(first, ZeroDivisionError)
    assert isinstance(second, ZeroDivisionError)
    assert others == [0.5, 0.25]


def test_a_cancelled_caller_is_not_computed():
    seen = []

    async def main():
        batcher = Batcher(lambda items: seen.extend(items) or items, max_batch=1, name="test")
        calls = [asyncio.ensure_future(batcher.submit(i)) for i in range(3)]
        await asyncio.sleep(0)
        calls[1].cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await batcher.close()
        with pytest.raises(asyncio.CancelledError):
            calls[1].result()

    asyncio.run(main())
    assert seen == [0, 2]

"""Running commands in this process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_server import FakeServer, Reply, Request, completion

from prm_gym.cli import main


@pytest.fixture(scope="session")
def games(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two games of `train` and two of `valid_unseen`."""
    from prm_gym.envs.households import generate

    folder = tmp_path_factory.mktemp("games")
    generate(folder, preset="small", splits={"train": 2, "valid_unseen": 2}, seed=3, progress=False)
    return folder


@pytest.fixture
def refusal(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command that must exit with status 2 and print one line, and gives the line without `error: `."""

    def run(*arguments: object) -> str:
        status = main([str(argument) for argument in arguments])
        shown = capsys.readouterr()
        assert (status, shown.out) == (2, "")
        [line] = shown.err.splitlines()
        assert line.startswith("error: ")
        return line.removeprefix("error: ")

    return run


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """A server in a thread of its own, since a command has an event loop of its own. It looks, or takes the action that
    it is asked for.
    """
    pytest.importorskip("httpx")
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def answer(request: Request) -> Reply:
        asked = request.body["messages"][-1]["content"].rpartition("The action must be exactly: ")
        return completion(request, text=f"REASON: I guess so.\nACTION: {asked[2] if asked[1] else 'look'}")

    fake = FakeServer(answer, models=["vendor/big"])
    asyncio.run_coroutine_threadsafe(fake.__aenter__(), loop).result(30)
    yield fake
    asyncio.run_coroutine_threadsafe(fake.__aexit__(), loop).result(30)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()

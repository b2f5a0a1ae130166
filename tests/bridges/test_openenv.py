"""The OpenEnv server: the texts of the environment itself, sessions apart, snapshots over the wire, limits kept."""

from __future__ import annotations

import asyncio
import logging
import math
import socket
import threading
import time
from contextlib import contextmanager

import pytest

pytest.importorskip("openenv", reason="openenv-core is not installed: pip install 'prm-gym[openenv]'")

import httpx
import uvicorn
from bridge_world import replayed, winning_actions

from prm_gym.bridges.openenv import MESSAGE_BYTES, Command, TextEnvClient, app
from prm_gym.bridges.world import World


@contextmanager
def served(world, sessions=8):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # as `main` does, but for ws_max_size: the application keeps its limit under any server
    server = uvicorn.Server(uvicorn.Config(app(world, sessions), port=port, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def url(world):
    with served(world) as url:
        yield url


def run(main):
    return asyncio.run(asyncio.wait_for(main, 60))


def test_an_episode_over_the_wire_is_the_environments_own(world, url):
    task = next(iter(world.tasks))
    actions = winning_actions(world, task)
    observations, rewards, info = replayed(world, task, actions)

    async def main():
        async with TextEnvClient(url) as client:
            first = await client.reset(task=task)
            steps = [await client.step(Command(command=action)) for action in actions]
            return first, steps, await client.state()

    first, steps, state = run(main())
    assert [first.observation.text, *(step.observation.text for step in steps)] == observations
    assert [step.reward for step in steps] == rewards
    assert [step.done for step in steps] == [False] * (len(actions) - 1) + [True]
    assert steps[-1].observation.won
    assert steps[-1].observation.admissible_commands == info["admissible_commands"]
    assert (first.observation.task, state.task_name, state.step_count) == (info["task"], task, len(actions))


def test_sessions_do_not_meet(world, url):
    tasks = list(world.tasks)

    async def play(task, actions):
        async with TextEnvClient(url) as client:
            shown = [(await client.reset(task=task)).observation.text]
            for action in actions:
                shown.append((await client.step(Command(command=action))).observation.text)
                await asyncio.sleep(0)
            return shown

    async def main():
        return await asyncio.gather(*(play(task, winning) for task, winning in plans))

    plans = [(task, winning_actions(world, task)) for task in tasks for _ in range(2)]
    for (task, actions), shown in zip(plans, run(main()), strict=True):
        assert shown == replayed(world, task, actions)[0]


def test_a_snapshot_is_restored_in_another_session(world, url):
    task = next(iter(world.tasks))
    actions = winning_actions(world, task)
    half = len(actions) // 2

    async def main():
        async with TextEnvClient(url) as one, TextEnvClient(url) as other:
            await one.reset(task=task)
            for action in actions[:half]:
                await one.step(Command(command=action))
            snapshot = await one.snapshot()
            await one.step(Command(command="look"))
            restored = await other.restore(snapshot)
            shown = [restored.observation.text]
            for action in actions[half:]:
                step = await other.step(Command(command=action))
                shown.append(step.observation.text)
            return shown, step

    shown, last = run(main())
    assert shown == replayed(world, task, actions)[0][half:]
    assert last.observation.won


def test_a_restored_episode_ends_at_its_own_step_limit(url):
    async def main():
        async with TextEnvClient(url) as one, TextEnvClient(url) as other:
            await one.reset(seed=1)
            for _ in range(20):
                await one.step(Command(command="look"))
            await other.restore(await one.snapshot())
            steps = [await other.step(Command(command="look")) for _ in range(10)]
            return [step.done for step in steps], steps[-1].observation.truncated

    assert run(main()) == ([False] * 9 + [True], True)


class Corridor:
    """Answers `nan` with such a reward and `text` with a reward that is none. Its snapshots are no JSON."""

    def reset(self, *, seed=None, options=None):
        return "a corridor", {"task": "walk"}

    def step(self, action):
        reward = {"nan": math.nan, "text": "much"}.get(action, 0.0)
        return "the corridor goes on", reward, False, False, {}

    def snapshot(self):
        return {"place": {1, 2}}

    def restore(self, snapshot):
        pass

    def close(self):
        pass


@pytest.mark.parametrize(("action", "said"), [("nan", "a reward of nan"), ("text", "a reward of 'much'")])
def test_an_environment_that_breaks_the_contract_is_named_and_the_session_goes_on(action, said):
    async def main(url):
        async with TextEnvClient(url) as client:
            await client.reset(task="one")
            with pytest.raises(RuntimeError, match=f"Corridor: {said}; return a finite number"):
                await client.step(Command(command=action))
            return await client.step(Command(command="on")), await client.snapshot()

    with served(World(Corridor, {"one": {}})) as url:
        step, snapshot = run(main(url))
    assert (step.observation.text, step.reward) == ("the corridor goes on", 0.0)
    assert snapshot is None


def test_what_the_environment_does_not_tell_is_empty(monkeypatch):
    untold = dict.fromkeys(("task", "task_type", "won"))
    monkeypatch.setattr(Corridor, "reset", lambda self, **arguments: ("a corridor", untold))

    async def main(url):
        async with TextEnvClient(url) as client:
            return (await client.reset(task="one")).observation

    with served(World(Corridor, {"one": {}})) as url:
        shown = run(main(url))
    assert (shown.task, shown.task_type, shown.won) == ("", "", False)


def test_a_seed_draws_the_same_task_again(url):
    async def main():
        async with TextEnvClient(url) as client:
            texts = [(await client.reset(seed=seed)).observation.text for seed in (1, 2, 3, 4, 5, 1, 2, 3, 4, 5)]
        return texts

    texts = run(main())
    assert texts[:5] == texts[5:]
    assert len(set(texts)) > 1


@pytest.mark.parametrize(
    "reset",
    [
        {"task": "../../etc/passwd"},
        {"task": "/etc/passwd"},
        {"snapshot": {"game_id": "/etc/passwd", "steps": 0, "play": {}}},
        {"snapshot": "/etc/passwd"},
        {"snapshot": [1]},
        {"task": {"game_file": "/etc/passwd"}},
    ],
)
def test_what_is_no_task_is_refused_and_the_session_goes_on(world, url, reset):
    async def main():
        async with TextEnvClient(url) as client:
            with pytest.raises(RuntimeError, match=r"no task|no game|give what `snapshot` returned|Invalid") as error:
                await client.reset(**reset)
            return str(error.value), await client.reset(task=next(iter(world.tasks)))

    said, after = run(main())
    assert "root:" not in said
    assert after.observation.text.startswith("-= Welcome")


def test_options_of_reset_are_no_way_to_a_file(world, url):
    path = next(iter(world.tasks.values()))["options"]["game_file"]

    async def main():
        async with TextEnvClient(url) as client:
            return await client.reset(seed=1, options={"game_file": path}), await client.reset(seed=1)

    with_path, without = run(main())
    assert with_path == without


def test_a_step_before_reset_is_refused(url):
    async def main():
        async with TextEnvClient(url) as client:
            await client.step(Command(command="look"))

    with pytest.raises(RuntimeError, match="reset"):
        run(main())


def test_sessions_are_bounded_and_given_back(world):
    async def main(url):
        async with TextEnvClient(url) as one, TextEnvClient(url) as two:
            await one.reset(seed=1)
            await two.reset(seed=1)
            three = await TextEnvClient(url).connect()
            assert (await three._receive())["data"]["code"] == "CAPACITY_REACHED"
            await three.close()
        await asyncio.sleep(0.5)
        async with TextEnvClient(url) as four:
            return await four.reset(seed=1)

    with served(world, sessions=2) as url:
        assert run(main(url)).observation.text


def test_a_long_message_closes_its_session_alone(url):
    async def main():
        async with TextEnvClient(url) as one, TextEnvClient(url) as other:
            await one.reset(seed=1)
            await other.reset(seed=1)
            with pytest.raises(Exception, match=r"1009|too big|closed"):
                await one._send_and_receive({"type": "step", "data": {"command": "x" * MESSAGE_BYTES}})
            return await other.step(Command(command="look"))

    assert run(main()).observation.text


@pytest.mark.parametrize("chunked", [False, True])
def test_a_long_body_is_refused(url, chunked):
    body = b'{"action": {"command": "' + b"x" * MESSAGE_BYTES + b'"}}'
    content = iter([body[:100], body[100:]]) if chunked else body
    headers = {"content-type": "application/json"}
    reply = httpx.post(f"{url}/step", content=content, headers=headers, trust_env=False)
    assert reply.status_code == (400 if chunked else 413)


def test_a_command_over_the_limit_is_no_action(url):
    async def main():
        async with TextEnvClient(url) as client:
            await client.reset(seed=1)
            await client._send_and_receive({"type": "step", "data": {"command": "x" * 2000}})

    with pytest.raises(RuntimeError, match="VALIDATION_ERROR"):
        run(main())


def test_a_client_that_goes_is_no_error_of_the_server(url, caplog):
    async def main():
        async with TextEnvClient(url) as client:
            await client.reset(seed=1)

    log = logging.getLogger("uvicorn.error")  # which does not propagate
    log.addHandler(caplog.handler)
    run(main())
    time.sleep(0.5)
    log.removeHandler(caplog.handler)
    assert "Exception" not in caplog.text

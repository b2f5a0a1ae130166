"""The speed of collection, against the limit of the inference server and against a lock-step collector.

    python benchmarks/rollout.py GAMES [--episodes 768] [--slots 64] [--in-flight 128] [--mean 0.2] [--sigma 1.0]

The server is simulated, the rest is real (engine, collector, store, and for the second table HTTP). Its law: it serves
`slots` requests at once, first come first served, and a request takes a log-normal time of mean `mean` seconds and
shape `sigma`, drawn by the request's seed: two collectors that send the same requests get the same times. Actions are
uniform over the admissible commands.

Each rate is measured in this run:
    peak        all requests of `collect` sent to the server at once, nothing else done
    collect     prm_gym.rollout.collect
    lock-step   the first `in-flight` of the same episodes as one batch, all of which wait for the slowest request of
                each turn; it stores nothing
The last figures are those that matter: collect / peak, and collect / lock-step. About eight minutes, mostly asleep.
While the last episodes end, slots stay empty: an event simulation of the law without any overhead gives collect / peak
= 0.91 with 384 episodes, 0.98 with 768 and 0.99 with 1536 (defaults otherwise).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import multiprocessing
import random
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from prm_gym.envs.alfworld import ALFWorldEnv
from prm_gym.envs.games import Game, find_games
from prm_gym.errors import run_program
from prm_gym.policies.random import RandomPolicy
from prm_gym.policies.server import ServerPolicy
from prm_gym.rollout import collect, draw_games
from prm_gym.rollout.episode import hash_seed
from prm_gym.types import Policy, Response, State

STEPS = 30


class Law:
    """The server's time for a request, and its queue."""

    def __init__(self, slots: int, mean: float, sigma: float) -> None:
        self.slots, self.mean, self.sigma = slots, mean, sigma
        self.free = asyncio.Semaphore(slots)

    async def serve(self, seed: int) -> None:
        """Takes a log-normal time with E[x] = mean, exp(N(ln mean - sigma^2/2, sigma^2)), once a slot is free."""
        seconds = random.Random(seed).lognormvariate(math.log(self.mean) - self.sigma**2 / 2, self.sigma)
        async with self.free:
            await asyncio.sleep(seconds)


class Simulated:
    """A random policy whose answers take the server's time."""

    policy_id = "simulated"

    def __init__(self, law: Law) -> None:
        self.law, self.inner = law, RandomPolicy()

    async def settings(self) -> dict[str, Any]:
        return await self.inner.settings()

    async def act(self, state: State, *, n: int = 1, seed: int = 0) -> list[Response]:
        await self.law.serve(seed)
        return await self.inner.act(state, n=n, seed=seed)

    async def close(self) -> None:
        pass


class Recorded:
    """A policy, with the seeds of its requests."""

    def __init__(self, policy: Policy) -> None:
        self.policy, self.policy_id, self.seeds = policy, policy.policy_id, list[int]()

    async def settings(self) -> dict[str, Any]:
        return await self.policy.settings()

    async def act(self, state: State, *, n: int = 1, seed: int = 0) -> list[Response]:
        self.seeds.append(seed)
        return await self.policy.act(state, n=n, seed=seed)

    async def close(self) -> None:
        await self.policy.close()


async def peak(law: Law, seeds: Sequence[int]) -> float:
    """Requests per second when all of them wait at the server from the start."""
    start = time.perf_counter()
    await asyncio.gather(*map(law.serve, seeds))
    return len(seeds) / (time.perf_counter() - start)


async def continuous(games: Sequence[Game], policy: Recorded, options: argparse.Namespace) -> tuple[float, float]:
    """Requests per second of prm_gym's collector, writing to its store, and its CPU seconds per request."""
    with tempfile.TemporaryDirectory() as out:
        start, cpu = time.perf_counter(), time.process_time()
        await collect(
            games, policy, out, rollouts_per_game=options.rollouts, concurrency=options.in_flight, progress=False
        )
        requests = len(policy.seeds)
        return requests / (time.perf_counter() - start), (time.process_time() - cpu) / requests


async def lock_step(games: Sequence[Game], policy: Recorded, options: argparse.Namespace) -> float:
    """Requests per second of a collector that asks for all actions of a batch, waits for all, and steps all.

    The seeds are those of `collect`; episodes that ended are not asked again.
    """
    jobs = [(game, hash_seed("collect", 0, game.game_id, i)) for game in games for i in range(options.rollouts)]
    start = time.perf_counter()
    batch = []
    for game, seed in jobs[: options.in_flight]:
        env = ALFWorldEnv([game], max_episode_steps=STEPS)
        observation, info = env.reset()
        commands = tuple(info["admissible_commands"])
        batch.append((env, seed, State(game.game_id, info["task"], (observation,), (), commands)))
    while batch:
        answers = await asyncio.gather(*(policy.act(s, seed=hash_seed(seed, s.turn)) for _, seed, s in batch))
        going = []
        for (env, seed, state), [answer] in zip(batch, answers, strict=True):
            observation, _, terminated, truncated, info = env.step(answer.action)
            if not (terminated or truncated):
                after = State(
                    state.game_id,
                    state.task,
                    (*state.observations, observation),
                    (*state.actions, answer.action),
                    tuple(info["admissible_commands"]),
                )
                going.append((env, seed, after))
        batch = going
    return len(policy.seeds) / (time.perf_counter() - start)


def serve_http(options: argparse.Namespace, address: Connection) -> None:
    """The same law behind /v1/chat/completions, in a process of its own; it always answers `look`."""
    answer = {"choices": [{"message": {"content": "ACTION: look"}, "finish_reason": "stop"}]}
    content = json.dumps({**answer, "usage": {"prompt_tokens": 500, "completion_tokens": 4}}).encode()
    reply = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(content) + content

    async def main() -> None:
        law = Law(options.slots, options.mean, options.sigma)

        async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while not reader.at_eof():
                try:
                    head = await reader.readuntil(b"\r\n\r\n")
                except asyncio.IncompleteReadError:
                    break
                if head.startswith(b"GET"):
                    writer.write(b"HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n")
                    continue
                length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                await law.serve(json.loads(await reader.readexactly(length))["seed"])
                writer.write(reply)

        server = await asyncio.start_server(connection, "127.0.0.1", 0)
        address.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    with suppress(KeyboardInterrupt):
        asyncio.run(main())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("games", type=Path, help="folder of games")
    parser.add_argument("--episodes", type=int, default=768)
    parser.add_argument("--rollouts", type=int, default=16, help="per game")
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--in-flight", type=int, default=128)
    parser.add_argument("--mean", type=float, default=0.2, help="seconds a request takes")
    parser.add_argument("--sigma", type=float, default=1.0)
    options = parser.parse_args()
    games = draw_games(find_games(options.games, "train"), 0, max(1, options.episodes // options.rollouts))
    for game in games:
        ALFWorldEnv([game]).reset()  # compiled before the clock runs

    def law() -> Law:
        return Law(options.slots, options.mean, options.sigma)

    def show(name: str, rate: float, requests: int) -> float:
        print(f"{name:28s} {rate:7.1f} requests/s over {requests:6d}", flush=True)
        return rate

    print(f"{len(games) * options.rollouts} episodes, {options}", flush=True)
    inside = Recorded(Simulated(law()))
    rate, cpu = asyncio.run(continuous(games, inside, options))
    show("collect, in process", rate, len(inside.seeds))
    best = show("peak, same requests", asyncio.run(peak(law(), inside.seeds)), len(inside.seeds))
    waiting = Recorded(Simulated(law()))
    stepped = show("lock-step, in process", asyncio.run(lock_step(games, waiting, options)), len(waiting.seeds))

    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.Process(target=serve_http, args=(options, sender), daemon=True)
    process.start()
    served = Recorded(ServerPolicy(f"http://127.0.0.1:{receiver.recv()}", "x", prompt="compact"))
    http_rate, http_cpu = asyncio.run(continuous(games, served, options))
    show("collect, over HTTP", http_rate, len(served.seeds))
    process.terminate()
    http_best = show("peak, same requests", asyncio.run(peak(law(), served.seeds)), len(served.seeds))

    print(f"collector's CPU time: {1e3 * cpu:.2f} ms a request in process, {1e3 * http_cpu:.2f} ms over HTTP")
    print(f"collect / peak:      {rate / best:.3f} in process, {http_rate / http_best:.3f} over HTTP")
    print(f"collect / lock-step: {rate / stepped:.2f}")


if __name__ == "__main__":
    run_program(main)

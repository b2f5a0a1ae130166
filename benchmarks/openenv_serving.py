"""Steps of ALFWorld in process, and over an OpenEnv server on this machine.

    python benchmarks/openenv_serving.py GAMES [--seconds 10] [--sessions 1 8 32]

Uniformly random admissible commands, new tasks at the end of each episode, every game compiled before the clock runs.
The server has a process of its own; the sessions share one client process, as environments of a trainer do. The last
column is the rate against that in process. Needs the extra `openenv`.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import subprocess
import sys
import time
import urllib.request

from prm_gym.bridges.openenv import Command, TextEnvClient
from prm_gym.bridges.world import World, alfworld

PORT = 18720


def in_process(world: World, seconds: float) -> float:
    """Steps per second of one environment."""
    env, rng, steps = world.make(), random.Random(0), 0
    tasks = list(world.tasks.values())
    for task in tasks:
        env.reset(**task)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        _, info = env.reset(**rng.choice(tasks))
        over = False
        while not over:
            *_, terminated, truncated, info = env.step(rng.choice(info["admissible_commands"]))
            over, steps = terminated or truncated, steps + 1
    return steps / seconds


async def over_the_wire(world: World, sessions: int, seconds: float) -> float:
    """Steps per second of all sessions together."""
    tasks = list(world.tasks)
    end = time.monotonic() + seconds

    async def session(seed: int) -> int:
        rng, steps = random.Random(seed), 0
        async with TextEnvClient(f"http://127.0.0.1:{PORT}") as client:
            while time.monotonic() < end:
                result = await client.reset(task=rng.choice(tasks))
                while not result.done and time.monotonic() < end:
                    command = rng.choice(result.observation.admissible_commands or ["look"])
                    result = await client.step(Command(command=command))
                    steps += 1
        return steps

    return sum(await asyncio.gather(*map(session, range(sessions)))) / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("games")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--sessions", type=int, nargs="+", default=[1, 8, 32])
    options = parser.parse_args()
    world = alfworld(options.games)
    inside = in_process(world, options.seconds)
    print(f"in process             {inside:9,.0f} steps/s", flush=True)
    flags = ["--port", str(PORT), "--sessions", str(max(options.sessions))]
    server = subprocess.Popen([sys.executable, "-m", "prm_gym.bridges.openenv", options.games, *flags])
    try:
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{PORT}/health", timeout=1).close()
                break
            except OSError:
                time.sleep(0.2)
        asyncio.run(over_the_wire(world, 1, 2))  # the server reads the compiled games
        for sessions in options.sessions:
            rate = asyncio.run(over_the_wire(world, sessions, options.seconds))
            print(f"OpenEnv, {sessions:3d} sessions  {rate:9,.0f} steps/s  {rate / inside:.3f}", flush=True)
    finally:
        server.terminate()


if __name__ == "__main__":
    main()

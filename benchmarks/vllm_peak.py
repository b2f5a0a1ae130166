"""Rollouts on a real vLLM server against the server's own throughput on the same requests.

    PRM_GYM_VLLM_PYTHON=.venv-vllm/bin/python python benchmarks/vllm_peak.py MODEL GAMES [--episodes 256]

Starts a server for MODEL (its environment: tests/policies/test_vllm.py), collects episodes, then sends the recorded
requests once more, `--in-flight` at a time, with no environment, prompt or store around them. Both are done twice, in
turns, after a warm-up; the last line is collect / peak of the sums. On one machine without a GPU the collector and the
server share the cores, so the ratio is that of a crowded machine: a lower bound.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from vllm_serving import NAME, PYTHON, serving

from prm_gym.envs.alfworld import ALFWorldEnv
from prm_gym.envs.games import Game, find_games
from prm_gym.policies.server import ServerPolicy
from prm_gym.rollout import collect, draw_games


def recording(policy: ServerPolicy) -> list[Any]:
    """The bodies of the requests that sample, from now on."""
    bodies: list[Any] = []
    post = policy._endpoints.post

    async def recorded(path: str, body: dict[str, Any], read: Callable[[dict[str, Any]], Any]) -> Any:
        if body["max_tokens"] > 1:  # `find_scale` asks for one token
            bodies.append(body)
        return await post(path, body, read)

    policy._endpoints.post = recorded  # type: ignore[method-assign, assignment]
    return bodies


async def collected(url: str, games: list[Game], options: argparse.Namespace, seed: int) -> tuple[float, list[Any]]:
    """Seconds, and the bodies of the requests."""
    policy = ServerPolicy(
        url, NAME, prompt="compact", tokenizer=options.model, max_tokens=16, concurrency=options.in_flight
    )
    bodies = recording(policy)
    with tempfile.TemporaryDirectory() as out:
        start = time.perf_counter()
        await collect(
            games, policy, out, max_episode_steps=20, seed=seed, concurrency=options.in_flight, progress=False
        )
        seconds = time.perf_counter() - start
    await policy.close()
    return seconds, bodies


async def replayed(url: str, bodies: list[Any], in_flight: int) -> float:
    """Seconds for the same requests, as many at once."""
    waiting = iter(bodies)
    limits = httpx.Limits(max_connections=in_flight, max_keepalive_connections=in_flight)
    async with httpx.AsyncClient(timeout=300, limits=limits) as client:

        async def send() -> None:
            for body in waiting:
                (await client.post(f"{url}/completions", json=body)).raise_for_status()

        start = time.perf_counter()
        await asyncio.gather(*(send() for _ in range(in_flight)))
        return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder of a checkpoint")
    parser.add_argument("games", type=Path, help="folder of games")
    parser.add_argument("--episodes", type=int, default=256)
    parser.add_argument("--in-flight", type=int, default=64)
    options = parser.parse_args()
    if not PYTHON:
        raise SystemExit("PRM_GYM_VLLM_PYTHON: not set; name an interpreter that has vLLM")
    games = draw_games(find_games(options.games, "train"), 0, options.episodes)
    for game in games:
        ALFWorldEnv([game]).reset()  # compiled before the clock runs
    server = ["--no-enable-prefix-caching"]  # the same requests come twice
    # vLLM 0.32 on a CPU ends when a prompt with a seed is prefilled in parts ("CPU Generator does not use offset").
    server += ["--no-enable-chunked-prefill", "--max-num-batched-tokens", "65536"]
    with tempfile.TemporaryDirectory() as folder, serving(options.model, Path(folder) / "log", *server) as url:
        asyncio.run(collected(url, games[:16], options, seed=0))
        ours = peak = 0.0
        for seed in (1, 2):
            seconds, bodies = asyncio.run(collected(url, games, options, seed))
            alone = asyncio.run(replayed(url, bodies, options.in_flight))
            ours, peak = ours + seconds, peak + alone
            rates = f"collect {len(bodies) / seconds:.1f}, peak {len(bodies) / alone:.1f} requests/s"
            print(f"{len(bodies)} requests: {rates}", flush=True)
    print(f"collect / peak: {peak / ours:.3f}")


if __name__ == "__main__":
    main()

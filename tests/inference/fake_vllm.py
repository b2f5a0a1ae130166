"""A program in place of `vllm serve`: `python fake_vllm.py MODEL --port PORT [--seconds S]`, S for an answer.

The response depends on the prompt's ids and the seed alone, so a server that was started again gives the same. The list
of models tells CUDA_VISIBLE_DEVICES, and the log the server's process id.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from hashlib import blake2b

from fake_server import FakeServer, Reply, Request, completion

ACTIONS = ("look", "inventory", "go to desk 1", "go to shelf 1", "go to bed 1", "examine desk 1")


def action(ids: list[int], seed: int) -> str:
    digest = blake2b(json.dumps([ids, seed]).encode(), digest_size=4).digest()
    return ACTIONS[int.from_bytes(digest, "big") % len(ACTIONS)]


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--port", type=int)
    parser.add_argument("--seconds", type=float, default=0.0)
    options = parser.parse_args()

    async def answer(request: Request) -> Reply:
        await asyncio.sleep(options.seconds)
        return completion(request, f"ACTION: {action(request.body['prompt'], request.body['seed'])}")

    told = {"devices": os.environ.get("CUDA_VISIBLE_DEVICES", "")}
    print(f"process {os.getpid()}", flush=True)
    async with FakeServer(answer, port=options.port, models=[options.model], told=told):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())

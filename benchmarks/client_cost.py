"""The CPU time that one client process spends on a request: collection against a server that answers at once.

    python benchmarks/client_cost.py GAMES [--before OTHER/src] [--tokenizer FOLDER] [--episodes 96] [--repeats 3]

The engine, collector, store, prompts, tokenizer and HTTP client are real. The server, a process of its own, gives
every request the same answer of 60 tokens, as vLLM does with token ids and log-probabilities; the action is `look`, so
all episodes have 30 turns. CPU time is `time.process_time` of the client. Each figure is that of a process of its own,
after a warm-up of the games and tokenizer, and the least of `--repeats`:

    in process       prm_gym.policies.random, no prompt
    compact, http    messages to /chat/completions, prompt `compact`
    compact, ids     ids to /completions, prompt `compact`
    full, ids        ids to /completions, prompt `full`

With `--before`, the package in another source folder (a checkout of an older commit) runs in turn with this one, and
the last column is the ratio. `--tokenizer` is a checkpoint's folder (models/alfworld-small by default).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

ROOT = Path(__file__).parents[1]
SETUPS = ("in process", "compact, http", "compact, ids", "full, ids")
ROLLOUTS_PER_GAME = 8
TEXT = "REASON: The mug may be in a cabinet that I have not opened yet, so I look around first.\nACTION: look"
CHOICE = {"index": 0, "finish_reason": "stop"}
LOGPROBS = {"token_logprobs": [-0.123456] * 60, "top_logprobs": [{"a": -0.1, "b": -3.0}]}
OF_IDS = json.dumps({**CHOICE, "text": TEXT, "token_ids": list(range(100, 160)), "logprobs": LOGPROBS}).encode()
OF_MESSAGES = json.dumps({**CHOICE, "message": {"content": TEXT}}).encode()


class Server(asyncio.Protocol):
    """Answers every request in one write: at once, or after a log-normal time of `mean` seconds and shape `sigma`."""

    def __init__(self, mean: float = 0.0, sigma: float = 1.0) -> None:
        self.mean, self.sigma = mean, sigma

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport, self.received = transport, b""

    def data_received(self, data: bytes) -> None:
        self.received += data
        while (end := self.received.find(b"\r\n\r\n")) >= 0:
            head = self.received[:end].lower()
            if head.startswith(b"get"):
                self.received = self.received[end + 4 :]
                self.transport.write(b"HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n")
                continue
            whole = end + 4 + int(head.split(b"content-length:")[1].split(b"\r\n")[0])
            if len(self.received) < whole:
                break
            body, self.received = self.received[end + 4 : whole], self.received[whole:]
            if self.mean:
                seconds = random.lognormvariate(math.log(self.mean) - self.sigma**2 / 2, self.sigma)
                asyncio.get_running_loop().call_later(seconds, self.transport.write, answer(body))
            else:
                self.transport.write(answer(body))


def answer(body: bytes) -> bytes:
    begin = body.find(b'"prompt":[')
    if begin >= 0:
        tokens, choice = body.count(b",", begin, body.index(b"]", begin)) + 1, OF_IDS
    else:
        tokens, choice = 900, OF_MESSAGES
    content = b'{"choices": [%s], "usage": {"prompt_tokens": %d, "completion_tokens": 60}}' % (choice, tokens)
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    return head % len(content) + content


def serve(address: Connection, mean: float = 0.0, sigma: float = 1.0) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Server(mean, sigma), "127.0.0.1", 0)
        address.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    with suppress(KeyboardInterrupt):
        asyncio.run(main())


def measure(setup: str, url: str, options: argparse.Namespace) -> float:
    """CPU milliseconds a request, in this process, with whichever prm_gym it imports."""
    from prm_gym.envs.games import find_games
    from prm_gym.policies.random import RandomPolicy
    from prm_gym.policies.server import ServerPolicy
    from prm_gym.rollout import draw_games, rollout

    games = draw_games(find_games(options.games, "train"), 0, max(1, options.episodes // ROLLOUTS_PER_GAME))
    prompt, _, sent = setup.partition(", ")
    policy: RandomPolicy | ServerPolicy = RandomPolicy()
    if sent:
        tokenizer = options.tokenizer if sent == "ids" else None
        policy = ServerPolicy(url, "model", prompt=prompt, tokenizer=tokenizer)
    for rollouts in (1, ROLLOUTS_PER_GAME):
        with tempfile.TemporaryDirectory() as out:
            start = time.process_time()
            shared = {"concurrency": 128, "progress": False}
            summary = rollout(games, policy, out, rollouts_per_game=rollouts, **shared)
            cost = 1e3 * (time.process_time() - start) / summary.actions
    return cost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("games", type=Path, help="folder of games")
    parser.add_argument("--before", type=Path, metavar="SRC", help="source folder of the package to compare with")
    parser.add_argument("--tokenizer", type=Path, default=ROOT / "models" / "alfworld-small")
    parser.add_argument("--episodes", type=int, default=96)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--measure", nargs=2, metavar=("SETUP", "URL"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        setup, url = options.measure
        print(measure(setup, url, options))
        return
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.Process(target=serve, args=(sender,), daemon=True)
    process.start()
    url = f"http://127.0.0.1:{receiver.recv()}/v1"
    sources = [options.before, ROOT / "src"] if options.before else [ROOT / "src"]

    def cost(source: Path, setup: str) -> float:
        command = [sys.executable, __file__, str(options.games), "--measure", setup, url]
        command += ["--tokenizer", str(options.tokenizer), "--episodes", str(options.episodes)]
        environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
        ran = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)
        return float(ran.stdout.split()[-1])

    print("CPU milliseconds a request" + (", before and now" if options.before else ""))
    for setup in SETUPS:
        found = [[cost(source, setup) for source in sources] for _ in range(options.repeats)]
        least = [min(column) for column in zip(*found, strict=True)]
        ratio = f"  x{least[0] / least[1]:.1f}" if options.before else ""
        print(f"{setup:14s}" + "".join(f"{value:8.3f}" for value in least) + ratio, flush=True)
    process.terminate()


if __name__ == "__main__":
    main()

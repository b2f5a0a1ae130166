"""A simulated server with faults of every kind, for tests and `soak.py`.

    python benchmarks/faulty_server.py [--port 8000] [--share 0.1] [--seed 0] [--mean 0.2] [--sigma 1.0] [--log FILE]

It answers POST /v1/completions as vLLM does with `return_token_ids` and `logprobs`. One token is one character. A
`share` of the answers are faults, their kinds drawn by `seed`; every other answer depends on the prompt and the seed
of the request alone, so that runs with and without faults give the same episodes. An answer takes a log-normal time
of mean `mean` seconds and shape `sigma`.

`--log` appends a line for each request when it comes and one when it ends, "<time> <seconds> <outcome>". The outcome is
`BEGUN`, `ANSWERED`, `LEFT` (the client closed the connection before the answer), `HUNG` (as `LEFT`, of a request that
was not to be answered) or the kind of the fault. A request without an end was open when the server was killed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import random
import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

# Each fault, and the kind under which prm_gym counts it.
FAULTS = {
    "status 429": "status 429",
    "status 500": "status 500",
    "status 503": "status 503",
    "reset": "broken connection",
    "cut off": "broken connection",
    "hang": "time-out",
    "html": "not a JSON object",
    "truncated": "not a JSON object",
    "garbage": "not a JSON object",
    "list": "not a JSON object",
    "no choices": "not what was asked for",
    "too many choices": "not what was asked for",
    "ids of another prompt": "not what was asked for",
    "another prompt length": "not what was asked for",
    "no log-probabilities": "not what was asked for",
}
BEGUN, ANSWERED, LEFT, HUNG = "begun", "answered", "left", "hung"
COMMANDS = ("go left", "go right", "open door")


class FaultyServer:
    """`async with FaultyServer(...) as server`: `server.url` is its base URL, `server.given` its faults by kind."""

    def __init__(
        self,
        share: float,
        seed: int = 0,
        *,
        mean: float = 0.0,
        sigma: float = 1.0,
        port: int = 0,
        log: Path | None = None,
    ) -> None:
        self.share, self.mean, self.sigma, self.port = share, mean, sigma, port
        self.random = random.Random(seed)
        self.given, self.answers = Counter[str](), 0
        self._log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT) if log else None

    async def __aenter__(self) -> FaultyServer:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self.server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        return self

    async def __aexit__(self, *error: object) -> None:
        self.server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._one(reader, writer):
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; whether the connection goes on."""
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"GET"):
            writer.write(http(200, json.dumps({"data": [{"id": "tiny", "max_model_len": 10**6}]})))
            return True
        begun = time.monotonic()
        self._note(begun, BEGUN)
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        answer = completion(json.loads(await reader.readexactly(length)))
        fault = self._fault()
        if self.mean:
            seconds = self.random.lognormvariate(math.log(self.mean) - self.sigma**2 / 2, self.sigma)
            if await _left(reader, seconds):
                self._note(begun, LEFT)
                return False
        if fault is None:
            self.answers += 1
            writer.write(http(200, json.dumps(answer)))
            self._note(begun, ANSWERED)
            return True
        self.given[FAULTS[fault]] += 1
        if fault == "hang":
            await _left(reader)
            self._note(begun, HUNG)
            return False
        if fault == "reset":
            writer.transport.abort()
        elif fault == "cut off":
            writer.write(http(200, json.dumps(answer))[:-20])
        else:
            writer.write(self._damaged(fault, answer))
        self._note(begun, FAULTS[fault])
        return fault not in ("reset", "cut off")

    def _note(self, begun: float, outcome: str) -> None:
        if self._log is not None:
            os.write(self._log, f"{time.time():.3f} {time.monotonic() - begun:.3f} {outcome}\n".encode())

    def _fault(self) -> str | None:
        if self.random.random() >= self.share:
            return None
        return self.random.choice(list(FAULTS))

    def _damaged(self, fault: str, answer: dict[str, Any]) -> bytes:
        if fault.startswith("status"):
            return http(int(fault.split()[1]), "<html>busy</html>", "retry-after: 0.05\r\n")
        text = json.dumps(answer)
        bodies = {
            "html": "<html><body>Sign in</body></html>",
            "truncated": text[: len(text) // 2],
            "garbage": self.random.randbytes(200).decode("latin-1"),
            "list": f"[{text}]",
        }
        if fault in bodies:
            return http(200, bodies[fault])
        choices = answer["choices"]
        if fault == "no choices":
            answer["choices"] = []
        elif fault == "too many choices":
            answer["choices"] = [*choices, *choices]
        elif fault == "ids of another prompt":
            choices[-1]["prompt_token_ids"] = [1, 2, 3]
        elif fault == "another prompt length":
            answer["usage"]["prompt_tokens"] += 1
        else:
            choices[-1]["logprobs"] = None
        return http(200, json.dumps(answer))


async def _left(reader: asyncio.StreamReader, seconds: float | None = None) -> bool:
    """Whether the client closes the connection within `seconds`."""
    try:
        await asyncio.wait_for(reader.read(1), seconds)
    except asyncio.TimeoutError:
        return False
    except ConnectionError:
        pass
    return True


def http(status: int, body: str, headers: str = "") -> bytes:
    content = body.encode()
    return f"HTTP/1.1 {status} x\r\n{headers}content-length: {len(content)}\r\n\r\n".encode() + content


def completion(body: dict[str, Any]) -> dict[str, Any]:
    """The right answer. The action is drawn from the admissible commands that the prompt names, else `COMMANDS`."""
    prompt = "".join(map(chr, body["prompt"]))
    named = re.findall(r"^- (.+)$", prompt.rpartition("<user>")[2], re.MULTILINE) or COMMANDS
    choices = []
    for number in range(body["n"]):
        draw = random.Random(f"{body['seed'] + number} {prompt}")
        text = f"REASON: drawn\nACTION: {draw.choice(named)}"
        ids = list(map(ord, text))[: body["max_tokens"]]
        top = {"token_id:1": -0.1, "token_id:2": -2.5}
        logprobs = {"token_logprobs": [-draw.random() for _ in ids], "top_logprobs": [top for _ in ids]}
        choices.append(
            {
                "text": text,
                "token_ids": ids,
                "prompt_token_ids": body["prompt"],
                "logprobs": logprobs,
                "finish_reason": "stop",
            }
        )
    tokens = sum(len(choice["token_ids"]) for choice in choices)
    return {"choices": choices, "usage": {"prompt_tokens": len(body["prompt"]), "completion_tokens": tokens}}


class Letters:
    """The tokenizer of this server: one id per character."""

    chat_template = "yes"

    def apply_chat_template(self, messages: list[Any], *, tokenize: bool, add_generation_prompt: bool, **_: Any) -> Any:
        text = "".join(f"<{message['role']}>{message['content']}" for message in messages)
        text += "<assistant>" if add_generation_prompt else ""
        return list(map(ord, text)) if tokenize else text

    def encode(self, text: str, **_: Any) -> list[int]:
        return list(map(ord, text))


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--share", type=float, default=0.1, help="of the answers that are faults")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--mean", type=float, default=0.2, help="seconds an answer takes")
    parser.add_argument("--sigma", type=float, default=1.0)
    parser.add_argument("--log", type=Path, help="file of the requests and their outcomes")
    o = parser.parse_args()
    async with FaultyServer(o.share, o.seed, mean=o.mean, sigma=o.sigma, port=o.port, log=o.log) as server:
        await server.server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())

"""The requests that `benchmarks/vllm_peak.py` sends once more."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("httpx")

from fake_server import FakeServer
from test_server import STATE, Letters
from test_server_logprobs import server
from vllm_peak import recording

from prm_gym.policies.server import ServerPolicy


def test_requests_that_sample_are_recorded_alone():
    async def main():
        async with FakeServer(server("raw_logprobs")) as fake:
            policy = ServerPolicy(fake.url, "tiny", prompt="compact", tokenizer=Letters(), max_tokens=3)
            bodies = recording(policy)
            for seed in (1, 2):
                await policy.act(STATE, seed=seed)
            await policy.close()
            return bodies, [request.body for request in fake.requests]

    bodies, sent = asyncio.run(asyncio.wait_for(main(), 30))
    assert [body["seed"] for body in bodies] == [1, 2]
    assert len(sent) == 4  # two that find the scale of the log-probabilities

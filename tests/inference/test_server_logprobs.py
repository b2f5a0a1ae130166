"""Log-probabilities from a server: their distribution is measured, never assumed."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

pytest.importorskip("httpx")

from fake_server import FakeServer, Reply, completion
from test_server import STATE, Letters

from prm_gym.policies.server import ServerPolicy

LOGITS = np.array([[2.0, 1.0, -1.0, 0.5], [0.3, -2.0, 1.2, 0.0], [4.0, 0.0, 0.0, -3.0]])  # [token, vocabulary]
SAMPLED = [1, 2, 0]


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


RETURNED = {
    "raw_logprobs": lambda temperature: log_softmax(LOGITS),
    "processed_logprobs": lambda temperature: log_softmax(LOGITS / (temperature or 1)),
    "raw_logits": lambda temperature: LOGITS,
    "processed_logits": lambda temperature: LOGITS / (temperature or 1),
    "cut to one token": lambda temperature: np.where(LOGITS.max(-1, keepdims=True) > LOGITS, -9999.0, 0.0),
    "uniform": lambda temperature: np.full_like(LOGITS, -np.log(4)),
}


def server(mode, only_default=False):
    """Answers as vLLM does in its `--logprobs-mode`."""

    async def handle(request):
        body = request.body
        if body["temperature"] > 2 or (only_default and body["temperature"] != 0.5):
            return Reply(400, {"message": "temperature must be in [0, 2]"})
        values = RETURNED[mode](body["temperature"])[: body["max_tokens"]]
        returned = {
            "token_logprobs": [float(row[token]) for row, token in zip(values, SAMPLED, strict=False)],
            "top_logprobs": [{str(i): float(row[i]) for i in np.argsort(-row)[: body["logprobs"]]} for row in values],
        }
        return completion(request, logprobs=returned, token_ids=SAMPLED[: body["max_tokens"]])

    return handle


def ask(handler, *, calls=1, n=1, **options):
    """The responses to `calls` acts at once, and the requests."""

    async def main():
        async with FakeServer(handler) as fake:
            options_ = {"tokenizer": Letters(), "max_tokens": 3, "backoff": 0.01, **options}
            policy = ServerPolicy(fake.url, "tiny", prompt="compact", **options_)
            try:
                answers = await asyncio.gather(*(policy.act(STATE, n=n) for _ in range(calls)))
            finally:
                await policy.close()
            return [response for answer in answers for response in answer], fake.requests

    return asyncio.run(asyncio.wait_for(main(), 30))


def expected(temperature):
    return float(log_softmax(LOGITS / temperature)[range(3), SAMPLED].sum())


@pytest.mark.parametrize("temperature", [0.3, 1.0])
def test_raw_values_are_of_temperature_1(temperature):
    [response], _ = ask(server("raw_logprobs"), temperature=temperature)
    assert response.logprob == pytest.approx(expected(1))
    assert response.sampling_logprob is None


@pytest.mark.parametrize("temperature", [0.3, 1.0])
def test_processed_values_are_of_what_was_sampled_from(temperature):
    [response], _ = ask(server("processed_logprobs"), temperature=temperature)
    assert response.logprob is None
    assert response.sampling_logprob == pytest.approx(expected(temperature))


def test_what_is_sampled_at_temperature_0_is_certain():
    [response], _ = ask(server("raw_logprobs"), temperature=0.0)
    assert (response.logprob, response.sampling_logprob) == (pytest.approx(expected(1)), 0.0)


@pytest.mark.parametrize("mode", ["raw_logits", "processed_logits", "cut to one token", "uniform"])
def test_values_that_are_no_log_probabilities_or_cannot_be_told_are_not_kept(mode):
    [response], _ = ask(server(mode), temperature=0.5)
    assert (response.logprob, response.sampling_logprob) == (None, None)


def test_a_server_that_refuses_the_question_still_samples():
    [response], _ = ask(server("raw_logprobs", only_default=True), temperature=0.5)
    assert (response.logprob, response.sampling_logprob) == (None, None)
    assert response.action == "look"


def test_the_server_is_asked_once_about_its_values():
    responses, requests = ask(server("raw_logprobs"), calls=5, n=4, temperature=0.5)
    assert len(requests) == 5 + 2
    assert [response.logprob for response in responses] == pytest.approx([expected(1)] * 20)


@pytest.mark.parametrize("returned", [None, {}, {"token_logprobs": [None, -1.0]}, {"token_logprobs": []}])
def test_a_server_without_values_is_asked_again_once_at_most(returned):
    """The first answer without them may be damaged; later ones are believed, and their scale is never asked for."""

    async def handle(request):
        return completion(request, logprobs=returned)

    responses, requests = ask(handler=handle, calls=3, temperature=0.5)
    assert {(response.logprob, response.sampling_logprob) for response in responses} == {(None, None)}
    assert len(requests) <= 4


def test_api_models_are_not_asked_for_values_that_some_refuse():
    async def handle(request):
        return completion(request)

    _, [request] = ask(handle, tokenizer=None)
    assert not {"logprobs", "top_logprobs"} & set(request.body)

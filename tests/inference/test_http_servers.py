"""Requests to servers: balance, health, retries, limits, and the result of each kind of failure."""

from __future__ import annotations

import asyncio
import re
import time
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from itertools import pairwise

import pytest

pytest.importorskip("httpx")

from fake_server import FakeServer, Reply

from prm_gym.errors import UserError
from prm_gym.inference import http_answers, http_connections
from prm_gym.inference.http_servers import Endpoints, RequestFailed
from prm_gym.types import PromptTooLong


async def ok(request):
    return Reply(body={"ok": True})


def sequence(*replies):
    """A handler that gives these replies in turn, then the last one for ever."""
    left = list(replies)

    async def handler(request):
        reply = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(reply, float):
            await asyncio.sleep(reply)
            return Reply(body={"late": True})
        return reply

    return handler


def run(main):
    return asyncio.run(asyncio.wait_for(main, 30))


def post_to(handler, times=1, read=dict, **options):
    """The answers to `times` concurrent posts, and the server."""

    async def main():
        async with FakeServer(handler) as server:
            endpoints = Endpoints(server.url, **{"backoff": 0.01, **options})
            try:
                return await asyncio.gather(*(endpoints.post("/x", {"i": i}, read) for i in range(times))), server
            finally:
                await endpoints.close()

    return run(main())


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again(status):
    answers, server = post_to(sequence(Reply(status), Reply(status), Reply(body={"ok": 1})))
    assert answers == [{"ok": 1}]
    assert len(server.requests) == 3
    assert len({str(request.body) for request in server.requests}) == 1


def test_a_dropped_connection_is_tried_again():
    answers, _ = post_to(sequence(Reply(drop=True), Reply(body={"ok": 1})))
    assert answers == [{"ok": 1}]


def test_a_server_that_hangs_is_given_up_and_tried_again():
    answers, server = post_to(sequence(5.0, Reply(body={"ok": 1})), timeout=0.2)
    assert answers == [{"ok": 1}]
    assert len(server.requests) == 2


def test_tries_are_bounded_and_the_last_problem_is_told():
    with pytest.raises(RequestFailed, match=r"/v1/x: status 500 \(broken\), after 3 tries"):
        post_to(sequence(Reply(500, "broken")), retries=2)


@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after_is_honoured(as_date):
    asked = time.time()
    value = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=2), usegmt=True) if as_date else "0.6"
    post_to(sequence(Reply(429, headers={"retry-after": value}), Reply(body={})))
    assert time.time() - asked > (0.5 if not as_date else 0.9)


@pytest.mark.parametrize("value", ["nan", "Fri, 01 Jan 2027 00:00:00 +999999999999999999"])
def test_a_retry_after_that_is_no_time_asks_for_no_wait(value):
    fault = http_answers.read_reply("", http_connections.Reply(429, {"retry-after": value}, b""))
    assert fault.wait == 0.0


def test_waits_grow_with_every_try():
    times = []

    async def handler(request):
        times.append(time.monotonic())
        return Reply(500)

    with pytest.raises(RequestFailed):
        post_to(handler, retries=4, backoff=0.05)
    gaps = [after - before for before, after in pairwise(times)]
    for number, gap in enumerate(gaps):
        assert 0.05 * 2**number * 0.5 <= gap <= 0.05 * 2**number + 0.2


@pytest.mark.parametrize(("status", "said"), [(401, "key"), (403, "refused"), (404, "no such path or model")])
def test_what_never_passes_is_a_user_error_at_once(status, said):
    with pytest.raises(UserError, match=said):
        post_to(sequence(Reply(status, "the server's words"), Reply(body={})))


@pytest.mark.parametrize(
    "said",
    [
        "This model's maximum context length is 2048 tokens. However, you requested 3000 tokens",
        '{"error": {"code": "context_length_exceeded"}}',
        "The input (3000 tokens) is longer than the model's context length (2048 tokens).",
        "the request exceeds the available context size. try increasing the context size",
        "Input validation error: `inputs` tokens + `max_new_tokens` must have less than 2049 tokens",
    ],
)
def test_a_prompt_over_the_context_has_its_own_exception(said):
    with pytest.raises(PromptTooLong):
        post_to(sequence(Reply(400, said)))


def test_another_refusal_fails_the_request_with_the_servers_words():
    with pytest.raises(RequestFailed, match="temperature must be positive"):
        post_to(sequence(Reply(400, '{"message": "temperature must be positive"}')))


BODIES = ["<html>", '{"choices": [', "", "[]", "[" * 100_000, "\x00\x07"]


@pytest.mark.parametrize("body", BODIES, ids=["html", "cut off", "empty", "list", "deep", "garbage"])
def test_a_body_that_is_not_a_json_object_is_tried_again(body):
    answers, server = post_to(sequence(Reply(200, body), Reply(200, body), Reply(body={"ok": 1})))
    assert answers == [{"ok": 1}]
    assert len(server.requests) == 3
    with pytest.raises(RequestFailed, match=r"/v1/x: the answer is not a JSON object .*, after 3 tries"):
        post_to(sequence(Reply(200, body)), retries=2)


@pytest.mark.parametrize("error", [KeyError("choices"), ValueError("two"), UserError("server", "adds a BOS", "do not")])
def test_an_answer_that_cannot_be_used_is_tried_again(error):
    def read(answer):
        if answer["wrong"]:
            raise error
        return "read"

    wrong, right = Reply(body={"wrong": True}), Reply(body={"wrong": False})
    answers, _ = post_to(sequence(wrong, wrong, right), read=read)
    assert answers == ["read"]
    raised = UserError if isinstance(error, UserError) else RequestFailed
    with pytest.raises(raised, match=str(error)):
        post_to(sequence(wrong), read=read, retries=2)


def test_a_redirection_is_tried_again():
    answers, _ = post_to(sequence(Reply(302, headers={"location": "/login"}), Reply(body={"ok": 1})))
    assert answers == [{"ok": 1}]


def test_a_retry_goes_to_another_server():
    """The first server asks to be left alone for a minute; the second answers at once."""

    async def main():
        async with FakeServer(sequence(Reply(429, headers={"retry-after": "60"}))) as one, FakeServer(ok) as other:
            endpoints = Endpoints([one.url, other.url], backoff=0.01)
            answer = await endpoints.post("/x", {}, dict)
            await endpoints.close()
            return answer, len(one.requests), len(other.requests)

    assert run(main()) == ({"ok": True}, 1, 1)


def test_an_outage_does_not_use_up_the_tries():
    replies = [Reply(503)] * 5 + [Reply(body={"ok": 1})]
    answers, _ = post_to(sequence(*replies), retries=0, backoff=0.001)
    assert answers == [{"ok": 1}]
    with pytest.raises(RequestFailed, match="status 503"):
        post_to(sequence(*replies), retries=0, backoff=0.001, outage=0.0)


def test_a_damaged_list_of_models_is_asked_for_again():
    """Settings are made of it, so an empty list would be another setting."""
    replies = iter(["<html>", '{"data": [{"id', '{"data": [{"id": "tiny", "max_model_len": 64}]}'])

    async def models(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        body = next(replies).encode()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        writer.close()

    async def main():
        async with await asyncio.start_server(models, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
            return await Endpoints(url, backoff=0.01).served("tiny")

    assert run(main()) == {"max_model_len": 64}


def test_concurrency_is_bounded():
    async def slow(request):
        await asyncio.sleep(0.01)
        return Reply(body={})

    _, server = post_to(slow, times=30, concurrency=4)
    assert len(server.requests) == 30
    assert server.most_under_way == 4


def test_the_less_busy_server_gets_more():
    """One server holds every request back until the other has answered 100. With round robin each would get half."""
    answered = asyncio.Event()

    async def slow(request):
        await answered.wait()
        return Reply(body={})

    async def main():
        async def fast(request):
            if len(quick.requests) == 100:
                answered.set()
            return Reply(body={})

        async with FakeServer(slow) as held, FakeServer(fast) as quick:
            endpoints = Endpoints([held.url, quick.url], concurrency=8)
            await asyncio.gather(*(endpoints.post("/x", {}, dict) for _ in range(120)))
            await endpoints.close()
            return len(held.requests), len(quick.requests)

    held, quick = run(main())
    assert held + quick == 120
    assert 0 < held <= 8 + 20, "at most one for each request at once, and a share of the last 20"


def test_a_dead_server_is_taken_out_and_tried_again_later():
    async def main():
        async with FakeServer(ok) as alive:
            async with FakeServer(ok) as doomed:
                port = doomed.port
            dead_url = doomed.url  # nobody listens there now
            endpoints = Endpoints([dead_url, alive.url], backoff=0.1)
            for _ in range(20):
                await endpoints.post("/x", {}, dict)
            tries = endpoints._endpoints[0].served
            assert len(alive.requests) == 20
            assert tries <= 3, "not asked at every request"
            async with FakeServer(ok, port=port) as back:
                await asyncio.sleep(1)
                for _ in range(10):
                    await endpoints.post("/x", {}, dict)
                assert back.requests, "back in service"
            await endpoints.close()

    run(main())


def test_requests_wait_for_a_server_that_comes_back():
    async def main():
        async with FakeServer(ok) as doomed:
            port, url = doomed.port, doomed.url
        endpoints = Endpoints(url, backoff=0.1)
        waiting = asyncio.gather(*(endpoints.post("/x", {}, dict) for _ in range(10)))
        await asyncio.sleep(0.3)
        async with FakeServer(ok, port=port):
            assert await waiting == 10 * [{"ok": True}]
        await endpoints.close()

    run(main())


def test_the_key_comes_from_the_environment_and_is_shown_nowhere(monkeypatch):
    monkeypatch.setenv("TEST_KEY", "sk-secret")

    async def refuse(request):
        return Reply(401, "no")

    async def main():
        async with FakeServer(refuse) as server:
            endpoints = Endpoints(server.url, api_key_env="TEST_KEY")
            with pytest.raises(UserError) as error:
                await endpoints.post("/x", {}, dict)
            await endpoints.close()
            return server.requests[0].headers, str(error.value) + repr(vars(endpoints))

    headers, shown = run(main())
    assert headers["authorization"] == "Bearer sk-secret"
    assert "sk-secret" not in shown


def test_bad_arguments_are_named(monkeypatch):
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    for urls, options, said in [
        ([], {}, "base_url"),
        ("localhost:8000", {}, "not an HTTP address"),
        ("http://localhost:abc/v1", {}, "not an HTTP address"),
        ("http://localhost:99999/v1", {}, "not an HTTP address"),
        ("http:///v1", {}, "not an HTTP address"),
        ("http://[::1/v1", {}, "not an HTTP address"),
        ("http://x", {"api_key_env": "NO_SUCH_KEY"}, "NO_SUCH_KEY is not set"),
        ("http://x", {"concurrency": 0}, "concurrency"),
    ]:
        with pytest.raises(UserError, match=said):
            Endpoints(urls, **options)


def test_a_missing_httpx_is_told_with_the_command_where_it_is_needed(monkeypatch):
    monkeypatch.setattr("prm_gym.inference.http_servers.find_spec", lambda name: None)
    Endpoints("http://x")
    with pytest.raises(UserError, match=r'pip install "prm-gym\[server\]"'):
        Endpoints("https://x")


def test_it_can_be_used_in_one_event_loop_after_another():
    async def main(endpoints_of):
        async with FakeServer(ok) as server:
            endpoints = endpoints_of(server.url)
            answer = await endpoints.post("/x", {}, dict)
            await endpoints.close()
            return answer

    kept = []

    def first_or_same(url):
        if not kept:
            kept.append(Endpoints(url))
        kept[0]._endpoints[0].url = url
        return kept[0]

    assert run(main(first_or_same)) == run(main(first_or_same)) == {"ok": True}


def test_every_wait_is_logged_with_its_number(caplog):
    caplog.set_level("INFO", "prm_gym")
    post_to(sequence(Reply(500), Reply(429), Reply(drop=True), Reply(body={})), retries=6)
    said = [re.sub(r"http://\S+", "URL", record.getMessage()) for record in caplog.records]
    assert said == [
        "server URL answers 500, retry 1 of 6 in 0 s",
        "server URL answers 429, retry 2 of 6 in 0 s",
        "server URL breaks off its answer, retry 3 of 6 in 0 s",
    ]


def test_an_answer_that_is_cut_off_is_not_called_a_missing_server():
    async def cut_off(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b'HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"data"')
        await writer.drain()
        writer.close()

    async def main():
        async with await asyncio.start_server(cut_off, "127.0.0.1", 0) as server:
            endpoints = Endpoints(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1")
            try:
                await endpoints.served("tiny")
            finally:
                await endpoints.close()

    with pytest.raises(UserError, match=r"/v1 breaks off its answer \(IncompleteReadError: .*; start the server, look"):
        run(main())

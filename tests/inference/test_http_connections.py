"""Connections to servers: replies of every form against httpx, reuse, and a real TLS server."""

from __future__ import annotations

import asyncio
import subprocess
from contextlib import asynccontextmanager

import pytest

pytest.importorskip("httpx")

from prm_gym.inference import http_connections
from prm_gym.inference.http_connections import HttpxConnection, NoReply, PlainConnection

JSON = b'{"a": "\xc3\xbc"}'
WHOLE = [
    b"HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n" + JSON,
    b"HTTP/1.1 200\r\nContent-Length:11\r\nX:  y z \r\n\r\n" + JSON,
    b"HTTP/1.1 404 No such path\r\ncontent-length: 0\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    b"5\r\n{\"a\":\r\n06;x=y\r\n \"\xc3\xbc\"}\r\n0\r\nt: u\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n" + JSON,
]  # fmt: skip
TO_THE_END = [
    b"HTTP/1.1 200 OK\r\n\r\n" + JSON,
    b"HTTP/1.0 200 OK\r\ncontent-type: text/html\r\n\r\n<html>",
    b"HTTP/1.1 200 OK\r\nConnection: close\r\ncontent-length: 11\r\n\r\n" + JSON,
]
BROKEN = [
    b"",
    b"HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\n" + JSON,
    b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n" + JSON,
    b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{\"a\":\r\n",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfive\r\n",
    b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    b"\x00\x01\x02\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n" + b"x" * 200_000,
]  # fmt: skip


@asynccontextmanager
async def serving(reply, *, close=False, wait=0.0, **options):
    """A server that gives `reply` to every request; gives its address and the list of its connections."""
    connections = []

    async def serve(reader, writer):
        connections.append(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = int(head.partition("content-length: ")[2].partition("\r\n")[0] or 0)
                connections.append((head, await reader.readexactly(length)))
                await asyncio.sleep(wait)
                writer.write(reply)
                if close:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, **options)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", connections
    finally:
        server.close()


async def ask(connection, times=1):
    try:
        replies = [await connection.request("POST", "/x", b'{"i": 1}') for _ in range(times)]
    finally:
        await connection.close()
    return [(reply.status, dict(reply.headers), reply.content) for reply in replies]


@pytest.mark.parametrize(("reply", "close"), [*((r, False) for r in WHOLE), *((r, True) for r in TO_THE_END)])
def test_a_reply_is_read_as_httpx_reads_it_and_a_whole_one_keeps_the_connection(reply, close):
    async def main():
        async with serving(reply, close=close) as (address, connections):
            wanted = await ask(HttpxConnection(f"http://{address}", {}, 5, True))
            del connections[:]
            replies = await ask(PlainConnection(f"http://{address}", {}, 5), times=3)
            return wanted, replies, sum(not isinstance(each, tuple) for each in connections)

    wanted, replies, opened = asyncio.run(main())
    assert replies == wanted * 3
    assert opened == (3 if close else 1)


@pytest.mark.parametrize("reply", BROKEN)
def test_a_broken_reply_is_none_and_its_connection_is_not_used_again(reply):
    async def main():
        async with serving(reply, close=True) as (address, _):
            connection = PlainConnection(f"http://{address}", {}, 5)
            for _ in range(2):
                with pytest.raises(NoReply) as caught:
                    await connection.request("POST", "/x", b"{}")
                assert caught.value.kind == http_connections.BROKEN
                assert connection._streams is None

    asyncio.run(main())


def test_a_server_that_does_not_answer_in_time_and_one_that_is_not_there():
    async def main():
        async with serving(WHOLE[0], wait=5) as (address, _):
            connection = PlainConnection(f"http://{address}", {}, 0.05)
            with pytest.raises(NoReply, match=r"0\.05 s") as late:
                await connection.request("GET", "/x")
        with pytest.raises(NoReply) as gone:
            await PlainConnection(f"http://{address}", {}, 5).request("GET", "/x")
        return late.value.kind, gone.value.kind

    assert asyncio.run(main()) == (http_connections.TIME_OUT, http_connections.UNREACHABLE)


def test_a_connection_that_the_server_closed_or_that_was_idle_for_long_is_opened_again(monkeypatch):
    async def main(reply, close):
        async with serving(reply, close=close) as (address, connections):
            connection = PlainConnection(f"http://{address}", {}, 5)
            for _ in range(2):
                assert (await connection.request("GET", "/x")).content == JSON
                await asyncio.sleep(0.05)
            await connection.close()
            return sum(not isinstance(each, tuple) for each in connections)

    assert asyncio.run(main(WHOLE[0], True)) == 2  # without saying so
    monkeypatch.setattr(http_connections, "_IDLE", 0.01)
    assert asyncio.run(main(WHOLE[0], False)) == 2


def test_a_cancelled_request_leaves_no_answer_behind_for_the_next_one():
    async def main():
        async with serving(WHOLE[0], wait=0.05) as (address, connections):
            connection = PlainConnection(f"http://{address}", {}, 5)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(connection.request("GET", "/x"), 0.01)
            await connection.request("GET", "/x")
            await connection.close()
            return sum(not isinstance(each, tuple) for each in connections)

    assert asyncio.run(main()) == 2


def test_the_request_is_what_was_asked_for():
    async def main():
        async with serving(WHOLE[0]) as (address, connections):
            await ask(PlainConnection(f"http://{address}", {"authorization": "Bearer k"}, 5))
            return address, connections[1]

    address, (head, body) = asyncio.run(main())
    first, *lines = head.split("\r\n")
    assert (first, body) == ("POST /v1/x HTTP/1.1", b'{"i": 1}')
    wanted = {f"host: {address.removesuffix('/v1')}", "authorization: Bearer k", "content-type: application/json"}
    assert wanted <= set(lines)


def test_https_is_read_through_httpx(tmp_path):
    import ssl

    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    try:
        subprocess.run([*make, *names], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("openssl cannot make a certificate here")
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own.load_cert_chain(certificate, key)

    async def main():
        async with serving(WHOLE[0], ssl=own) as (address, _):
            trusting = ssl.create_default_context(cafile=certificate)
            [reply] = await ask(HttpxConnection(f"https://{address}", {}, 5, trusting))
            with pytest.raises(NoReply) as refused:
                await ask(HttpxConnection(f"https://{address}", {}, 5, ssl.create_default_context()))
            return reply[2], refused.value.kind

    assert asyncio.run(main()) == (JSON, http_connections.UNREACHABLE)

"""Clients that are slow, greedy, confused or malicious: each is refused, and the next one is served."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from trivet.http import HttpResponse, Route

pytestmark = pytest.mark.anyio

GET = b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST /echo HTTP/1.1\r\nHost: a\r\n"


async def refused(client: Any, status: int) -> str:
    """The answer is an error as JSON, and the last one on its connection."""
    reply = await client.reply()
    assert (reply.status, reply.headers["connection"]) == (status, "close")
    assert reply.headers["content-type"] == "application/json"
    client.writer.write_eof()
    assert await client.ended() == b""
    return str(json.loads(reply.body)["error"])


SMUGGLING = {
    "both framings": POST + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + GET,
    "both, the other way round": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\n" + GET,
    "two lengths": POST + b"Content-Length: 0\r\nContent-Length: 33\r\n\r\n" + GET,
    "the same length twice": POST + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\nx" + GET,
    "a list of lengths": POST + b"Content-Length: 0, 33\r\n\r\n" + GET,
    "a negative length": POST + b"Content-Length: -1\r\n\r\n" + GET,
    "a signed length": POST + b"Content-Length: +1\r\n\r\nx" + GET,
    "a length past 64 bits": POST + b"Content-Length: 18446744073709551617\r\n\r\nx" + GET,
    "a hexadecimal length": POST + b"Content-Length: 0x1\r\n\r\nx" + GET,
    "chunked and something after it": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + GET,
    "chunked twice": POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n" + GET,
    "almost chunked": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + GET,
    "chunked behind a control character": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n" + GET,
    "space before the colon": POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + GET,
    "a folded header": POST + b"X: y\r\n Content-Length: 33\r\n\r\n" + GET,
    "a line break without CR": POST + b"X: y\nContent-Length: 33\r\n\r\n" + GET,
    "CR alone": POST + b"X: y\rContent-Length: 33\r\n\r\n" + GET,
    "NUL": POST + b"X: y\x00\r\n\r\n" + GET,
    "headers that end without CR": b"GET /hello HTTP/1.1\nHost: a\n\n" + GET,
    "a chunk size past 64 bits": POST + b"Transfer-Encoding: chunked\r\n\r\n10000000000000001\r\nx\r\n0\r\n\r\n" + GET,
    "a negative chunk size": POST + b"Transfer-Encoding: chunked\r\n\r\n-1\r\nx\r\n0\r\n\r\n" + GET,
    "a chunk longer than it says": POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\nxy\r\n0\r\n\r\n" + GET,
    "a chunk that ends without CR": POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\n0\r\n\r\n" + GET,
    "a chunk size that ends without CR": POST + b"Transfer-Encoding: chunked\r\n\r\n1\nx\r\n0\r\n\r\n" + GET,
    "a request behind an HTTP/1.0 chunked one": POST.replace(b"1.1", b"1.0")
    + b"Transfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n0\r\n\r\n"
    + GET,
    "two hosts": b"GET /hello HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n" + GET,
    "no host": b"GET /hello HTTP/1.1\r\n\r\n" + GET,
}


@pytest.mark.parametrize("data", SMUGGLING.values(), ids=SMUGGLING)
async def test_smuggled_requests_are_never_served(serve: Any, connect: Any, echo: Any, data: bytes) -> None:
    async with serve(*echo) as transport:
        client = await connect(transport)
        client.send(data)
        assert re.search("malformed|more than one", await refused(client, 400))
        other = await connect(transport)
        other.send(GET)
        assert (await other.reply()).body == b"hello"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /" + b"x" * 9000, 414),  # not even complete
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nX: " + b"y" * 70_000, 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 200 + b"\r\n", 431),
        (POST + b"Content-Length: 1001\r\n\r\n", 413),
        (POST + b"Content-Length: 1001\r\n\r\n" + b"x" * 1001, 413),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n3e9\r\n", 413),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"64\r\n%b\r\n" % (b"x" * 100) * 11, 413),
        (b"BREW /coffee HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),  # TLS
        (b"\x00" * 100, 400),
        (b"\r\n\r\n\r\n", 400),
    ],
    ids=repr,
)
async def test_limits_and_other_protocols(serve: Any, connect: Any, echo: Any, data: bytes, status: int) -> None:
    async with serve(*echo, http_max_body_size=1000) as transport:
        client = await connect(transport)
        client.send(GET + data)
        assert (await client.reply()).body == b"hello"
        await refused(client, status)


async def test_a_refused_client_that_goes_on_sending_still_reads_why(serve: Any, connect: Any, echo: Any) -> None:
    async with serve(*echo, http_max_body_size=1000) as transport:
        client = await connect(transport)
        client.send(POST + b"Content-Length: 50000000\r\n\r\n" + b"x" * 50_000_000)
        await client.writer.drain()
        assert "larger than 1000 bytes" in await refused(client, 413)


async def test_a_body_that_ends_half_way(serve: Any, connect: Any, echo: Any) -> None:
    async with serve(*echo) as transport:
        for framing in (b"Content-Length: 10\r\n\r\nhalf", b"Transfer-Encoding: chunked\r\n\r\na\r\nhalf"):
            client = await connect(transport)
            client.send(POST + framing)
            client.writer.write_eof()
            reply = await client.reply()
            assert (reply.status, reply.headers["connection"]) == (400, "close")
            assert b"ended in the middle" in reply.body
            assert await client.ended() == b""


async def test_a_pipelined_body_that_ends_half_way(serve: Any, connect: Any, echo: Any, until: Any) -> None:
    waiting = []
    async with serve(*echo, Route("GET", "/later", waiting.append)) as transport:
        client = await connect(transport)
        client.send(b"GET /later HTTP/1.1\r\nHost: a\r\n\r\n" + POST + b"Content-Length: 10\r\n\r\nhalf")
        client.writer.write_eof()
        await until(lambda: bool(waiting))
        waiting[0].respond(HttpResponse())
        assert (await client.reply()).status == 200
        assert (await client.reply()).status == 400
        assert await client.ended() == b""


# --- slow clients -----------------------------------------------------------------------------------------------------


async def test_a_client_that_never_says_anything(serve: Any, connect: Any, echo: Any) -> None:
    async with serve(*echo, http_header_timeout=0.05) as transport:
        client = await connect(transport)
        assert await client.ended() == b""


@asynccontextmanager
async def dripping(client: Any, beginning: bytes, piece: bytes) -> AsyncIterator[None]:
    """The client sends ``beginning`` and then ``piece`` after ``piece``, slowly, without end."""

    async def drip() -> None:
        client.send(beginning)
        while True:
            client.send(piece)
            await asyncio.sleep(0.01)

    task = asyncio.create_task(drip())
    try:
        yield
    finally:
        task.cancel()


async def test_a_head_that_drips_in(serve: Any, connect: Any, echo: Any) -> None:
    async with serve(*echo, http_header_timeout=0.2) as transport:
        client = await connect(transport)
        async with dripping(client, b"GET /hello HTTP/1.1\r\n", b"X: y\r\n"):
            reply = await client.reply()
        assert (reply.status, reply.headers["connection"]) == (408, "close")


@pytest.mark.parametrize("framing", [b"Content-Length: 1000000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\nffff\r\n"])
async def test_a_body_that_drips_in(serve: Any, connect: Any, echo: Any, framing: bytes) -> None:
    async with serve(*echo, http_body_timeout=0.1, http_min_body_rate=1_000_000) as transport:
        client = await connect(transport)
        async with dripping(client, POST + framing, b"x"):
            reply = await client.reply()
        assert (reply.status, reply.headers["connection"]) == (408, "close")


async def test_a_body_that_takes_long_and_is_fast_enough(serve: Any, connect: Any, echo: Any, until: Any) -> None:
    async with serve(*echo, http_body_timeout=0.02, http_min_body_rate=10) as transport:
        client = await connect(transport)
        client.send(POST + b"Content-Length: 100\r\n\r\n" + b"x" * 99)
        (connection,) = transport._hubs[0].connections
        await until(lambda: connection._rest is not None)
        begun = connection.deadline
        await until(lambda: connection.deadline > begun)
        client.send(b"x")
        assert (await client.reply()).body == b"x" * 100


async def test_an_idle_connection(serve: Any, connect: Any, echo: Any) -> None:
    async with serve(*echo, http_keep_alive_timeout=0.05) as transport:
        client = await connect(transport)
        client.send(GET)
        assert (await client.reply()).body == b"hello"
        assert await client.ended() == b""


async def test_no_timeout_runs_while_a_handler_works(serve: Any, connect: Any, until: Any) -> None:
    waiting: list[Any] = []
    timeouts = {f"http_{name}_timeout": 0.2 for name in ("header", "body", "write", "keep_alive")}
    async with serve(Route("GET", "/", waiting.append), **timeouts) as transport:
        client = await connect(transport)
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await until(lambda: bool(waiting))
        # Each sweep moves this deadline on. Five timeouts later, one that ran would have closed the connection.
        hub = transport._hubs[0]
        over = hub.idle_deadline + 1
        await until(lambda: hub.idle_deadline > over)
        waiting[0].respond(HttpResponse(200, (b"slow",)))
        assert (await client.reply()).body == b"slow"


@pytest.mark.parametrize("close", [b"", b"Connection: close\r\n"])
async def test_a_client_that_does_not_take_its_answer(serve: Any, connect: Any, until: Any, close: bytes) -> None:
    large = b"x" * 30_000_000
    async with serve(
        Route("GET", "/", lambda request: HttpResponse(200, (large,))), http_write_timeout=0.05
    ) as transport:
        client = await connect(transport)
        client.writer.transport.pause_reading()
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n" + close + b"\r\n")
        connections = transport._hubs[0].connections
        await until(lambda: not connections)
        client.writer.transport.resume_reading()
        assert len(await client.ended()) < len(large)


# --- many clients -----------------------------------------------------------------------------------------------------


async def test_connections_past_the_limit(serve: Any, connect: Any, echo: Any, until: Any) -> None:
    waiting: list[Any] = []
    async with serve(*echo, Route("GET", "/later", waiting.append), http_max_connections=3) as transport:
        clients = [await connect(transport) for _ in range(3)]
        for client in clients:
            client.send(GET)
            assert (await client.reply()).body == b"hello"
        for client in clients[1:]:
            client.send(b"GET /later HTTP/1.1\r\nHost: a\r\n\r\n")
        await until(lambda: len(waiting) == 2)
        late = await connect(transport)  # takes the place of the idle one
        assert await clients[0].ended() == b""
        late.send(b"GET /later HTTP/1.1\r\nHost: a\r\n\r\n")
        await until(lambda: len(waiting) == 3)
        too_late = await connect(transport)
        reply = await too_late.reply()
        assert (reply.status, reply.headers["connection"]) == (503, "close")
        assert b"--http-max-connections" in reply.body
        for request in waiting:
            request.respond(HttpResponse(200, (b"later",)))
        for client in (*clients[1:], late):
            assert (await client.reply()).body == b"later"


# --- anything ---------------------------------------------------------------------------------------------------------

FRAGMENTS = st.sampled_from(
    [
        GET,
        POST,
        b"POST /echo HTTP/1.1\r\n",
        b"Content-Length: 3\r\n",
        b"Content-Length: 99999\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Expect: 100-continue\r\n",
        b"Connection: close\r\n",
        b"\r\n",
        b"abc",
        b"3\r\nabc\r\n",
        b"0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x00\xff",
        b"HTTP/1.1 200 OK\r\n",
        b"Host: a\r\n",
        b"GET / HTTP/1.0\r\n",
        b" ",
        b":",
    ]
)


@given(st.lists(st.one_of(st.binary(max_size=20), FRAGMENTS), max_size=8))
@hypothesis_settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
async def test_whatever_comes_the_next_connection_is_served(
    serve: Any, connect: Any, echo: Any, caplog: Any, pieces: list[bytes]
) -> None:
    async with serve(*echo) as transport:
        client = await connect(transport)
        for piece in pieces:
            client.send(piece)
            await asyncio.sleep(0)
        with contextlib.suppress(ConnectionError):
            client.writer.write_eof()
        await client.ended()
        await client.close()
        other = await connect(transport)
        other.send(GET)
        assert (await other.reply()).body == b"hello"
        await other.close()
    assert not caplog.records

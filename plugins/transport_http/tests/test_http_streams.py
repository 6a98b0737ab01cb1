"""Answers that come in chunks: framing, a client that is slow or goes away, a stream that fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import h2.config
import h2.connection
import h2.events
import pytest
from trivet.http import HttpResponse, Route

pytestmark = pytest.mark.anyio

GET = b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n"


async def test_a_stream(serve: Any, connect: Any, echo: Any) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for chunk in (b"one", b"", b"two", b"x" * 100_000):
            await asyncio.sleep(0)
            yield chunk

    def handler(request: Any) -> HttpResponse:
        return HttpResponse(200, headers=((b"content-type", b"text/event-stream"),), stream=chunks())

    async with serve(*echo, Route("GET", "/stream", handler)) as transport:
        client = await connect(transport)
        stream = b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n"
        client.send(stream + GET + stream.replace(b"GET", b"HEAD") + GET)
        reply = await client.reply()
        assert reply.headers == {"content-type": "text/event-stream", "transfer-encoding": "chunked"}
        assert reply.body == b"onetwo" + b"x" * 100_000
        assert (await client.reply()).body == b"hello"
        assert (await client.reply(to_head=True)).headers["transfer-encoding"] == "chunked"
        assert (await client.reply()).body == b"hello"
        client.send(b"GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        reply = await client.reply()
        assert reply.headers == {"content-type": "text/event-stream", "connection": "close"}
        assert len(reply.body) == 100_006


async def test_a_stream_waits_for_a_slow_client_and_ends_with_it(serve: Any, connect: Any, until: Any) -> None:
    made = 0
    closed = asyncio.Event()

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal made
        try:
            while True:
                made += 1
                yield b"x" * 65536
        finally:
            closed.set()

    async with serve(Route("GET", "/", lambda request: HttpResponse(stream=chunks()))) as transport:
        client = await connect(transport)
        client.writer.transport.pause_reading()
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        (connection,) = transport._hubs[0].connections
        await until(lambda: connection._write_paused)
        before = made
        for _ in range(50):
            await asyncio.sleep(0)
        assert made <= before + 1
        client.writer.transport.abort()
        async with asyncio.timeout(20):
            await closed.wait()


async def test_a_stream_that_fails_is_cut_off(serve: Any, connect: Any, caplog: Any) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"begun"
        raise ValueError("no more")

    async with serve(Route("GET", "/", lambda request: HttpResponse(stream=chunks()))) as transport:
        client = await connect(transport)
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await client.head()).status == 200
        assert b"0\r\n\r\n" not in await client.ended()
    assert "ValueError: no more" in caplog.text


async def test_a_stream_waits_for_a_slow_http2_client(serve: Any, connect: Any) -> None:
    made = 0
    closed = asyncio.Event()

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal made
        try:
            while True:
                made += 1
                yield b"x" * 65536
        finally:
            closed.set()

    async with serve(Route("GET", "/", lambda request: HttpResponse(stream=chunks())), http2=True) as transport:
        client = await connect(transport)
        h2c = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        h2c.initiate_connection()
        h2c.send_headers(
            1, [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")], end_stream=True
        )
        client.send(h2c.data_to_send())
        received = 0
        async with asyncio.timeout(20):
            while received < 65_535:  # all that HTTP/2 lets the server send before it is granted more
                for event in h2c.receive_data(await client.reader.read(65536)):
                    received += len(event.data or b"") if isinstance(event, h2.events.DataReceived) else 0
        for _ in range(50):
            await asyncio.sleep(0)
        assert made <= 3
        client.writer.transport.abort()
        async with asyncio.timeout(20):
            await closed.wait()


@pytest.mark.parametrize("when", ["at once", "while it is read"])
async def test_who_feeds_a_stream_is_told_that_its_client_has_gone(serve: Any, connect: Any, when: str) -> None:
    """Also where the client was gone before the first chunk was asked for, so that there is nothing to close."""
    arrived = asyncio.Queue[Any]()
    gone = asyncio.Event()
    more = asyncio.Event()

    def handler(request: Any) -> None:
        request.on_disconnect = gone.set
        arrived.put_nowait(request)

    async def chunks() -> AsyncIterator[bytes]:
        yield b"one"
        await more.wait()

    async with serve(Route("GET", "/", handler)) as transport:
        client = await connect(transport)
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        request = await arrived.get()
        request.respond(HttpResponse(stream=chunks()))
        if when == "while it is read":
            await client.reader.readuntil(b"one\r\n")
        client.writer.transport.abort()
        async with asyncio.timeout(20):
            await gone.wait()


async def test_who_feeds_a_stream_is_not_told_when_it_has_ended(serve: Any, connect: Any, until: Any) -> None:
    told: list[None] = []

    async def chunks() -> AsyncIterator[bytes]:
        yield b"one"

    def handler(request: Any) -> HttpResponse:
        request.on_disconnect = lambda: told.append(None)
        return HttpResponse(stream=chunks())

    async with serve(Route("GET", "/", handler)) as transport:
        client = await connect(transport)
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await client.reply()).body == b"one"
        await client.close()
        await until(lambda: not transport._hubs[0].connections)
    assert not told


async def test_a_stream_that_cannot_begin_is_not_fed(serve: Any, connect: Any, caplog: Any) -> None:
    gone = asyncio.Event()

    async def chunks() -> AsyncIterator[bytes]:
        yield b"never"

    def handler(request: Any) -> HttpResponse:
        request.on_disconnect = gone.set
        return HttpResponse(headers=((b"Bad Name", b"x"),), stream=chunks())

    async with serve(Route("GET", "/", handler)) as transport:
        client = await connect(transport)
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await client.reply()).status == 500
    assert gone.is_set()
    assert "cannot be sent" in caplog.text

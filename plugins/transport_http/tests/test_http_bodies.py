"""Large bodies: one buffer of the body's own size, and no memory for promises."""

from __future__ import annotations

import asyncio
import tracemalloc
from typing import Any

import numpy as np
import psutil
import pytest
from trivet.http import HttpResponse, Route

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
SIZE = 16 * MIB


def head(size: int) -> bytes:
    return b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size


async def test_a_large_body_is_received_into_one_buffer(serve: Any, connect: Any) -> None:
    body = np.arange(SIZE, dtype=np.uint32).view(np.uint8)[:SIZE].tobytes()
    traced = []

    def handler(request: Any) -> HttpResponse:
        traced.append(tracemalloc.get_traced_memory())
        assert isinstance(request.body, memoryview)
        assert request.body == body
        return HttpResponse(200, (request.body,))

    async with serve(Route("POST", "/", handler)) as transport:
        client = await connect(transport)

        async def upload() -> None:
            # In pieces that the client's own buffering does not add up to another copy in this process.
            client.send(head(SIZE))
            for start in range(0, SIZE, 65536):
                client.send(body[start : start + 65536])
                await client.writer.drain()

        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            await upload()
            reply_head = await client.head()
            _, peak = traced[0]
        finally:
            tracemalloc.stop()
        assert reply_head.headers["content-length"] == str(SIZE)
        assert await client.reader.readexactly(SIZE) == body
        # The buffer, and what the client holds of it on its way: less than a second copy by far.
        assert SIZE <= peak - before < SIZE + 2 * MIB


async def test_a_large_answer_is_written_from_where_it_is(serve: Any, connect: Any) -> None:
    answer = memoryview(np.arange(SIZE // 4, dtype=np.uint32))

    async with serve(Route("GET", "/", lambda request: HttpResponse(200, (b"head", answer)))) as transport:
        client = await connect(transport)
        client.writer.transport.pause_reading()
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        (connection,) = transport._hubs[0].connections
        uvloop = type(connection.hub.loop).__module__ == "uvloop"
        tracemalloc.start()
        try:
            async with asyncio.timeout(20):
                while not connection._write_paused:  # noqa: ASYNC110
                    await asyncio.sleep(0)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        # asyncio's own transports join and copy what they cannot send at once.
        assert not uvloop or peak < MIB
        client.writer.transport.resume_reading()
        assert (await client.head()).headers["content-length"] == str(4 + SIZE)
        assert await client.reader.readexactly(4 + SIZE) == b"head" + answer.tobytes()


async def test_a_length_that_lies_costs_no_memory(serve: Any, connect: Any, until: Any) -> None:
    process = psutil.Process()
    async with serve(Route("POST", "/", lambda request: HttpResponse())) as transport:
        hub = transport._hubs[0]
        warm = await connect(transport)
        warm.send(head(5) + b"hello")
        assert (await warm.reply()).status == 200
        before = process.memory_info().rss
        for _ in range(20):
            client = await connect(transport)
            client.send(head(1024 * MIB) + b"x" * 1000)
        await until(lambda: sum(c._rest is not None for c in hub.connections) == 20)
        assert process.memory_info().rss - before < 32 * MIB


@pytest.mark.parametrize("size", [1, 65_535, 65_536, 65_537, 1_000_000])
async def test_bodies_of_all_sizes_in_a_row(serve: Any, connect: Any, size: int) -> None:
    body = bytes(range(256)) * (size // 256) + bytes(size % 256)
    async with serve(Route("POST", "/", lambda request: HttpResponse(200, (request.body,)))) as transport:
        client = await connect(transport)
        for _ in range(3):
            client.send(head(size) + body)
            assert (await client.reply()).body == body
        # The end of one body and the beginning of the next request come in one segment.
        client.send(head(size) + body[: size // 2])
        await asyncio.sleep(0)
        client.send(body[size // 2 :] + head(size) + body)
        assert (await client.reply()).body == body
        assert (await client.reply()).body == body


async def test_a_body_outlives_its_connection(serve: Any, connect: Any) -> None:
    kept = []

    def handler(request: Any) -> HttpResponse:
        kept.append(request.body)
        return HttpResponse()

    async with serve(Route("POST", "/", handler)) as transport:
        for fill in (b"a", b"b"):
            client = await connect(transport)
            client.send(head(200_000) + fill * 200_000)
            assert (await client.reply()).status == 200
            await client.close()
    assert [bytes(body) for body in kept] == [b"a" * 200_000, b"b" * 200_000]


async def test_a_chunked_body_up_to_the_limit(serve: Any, connect: Any) -> None:
    async with serve(
        Route("POST", "/", lambda request: HttpResponse(200, (request.body,))), http_max_body_size=MIB
    ) as transport:
        client = await connect(transport)
        chunk = b"%x\r\n%b\r\n" % (1024, b"x" * 1024)
        request = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk * 1024
        client.send(request + b"0\r\n\r\n")
        assert (await client.reply()).body == b"x" * MIB
        client.send(request + b"1\r\nx\r\n0\r\n\r\n")
        assert (await client.reply()).status == 413

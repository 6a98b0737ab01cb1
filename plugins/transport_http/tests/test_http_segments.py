"""How requests are cut into segments on their way makes no difference to their answers."""

from __future__ import annotations

import asyncio
import socket
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from trivet.http import HttpResponse, Route
from trivet.options import Settings
from trivet_transport_http.connection import Connection
from trivet_transport_http.hub import Hub
from trivet_transport_http.options import OPTIONS, Limits
from trivet_transport_http.router import Router

GET = b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n"


def post(body: bytes, *headers: bytes) -> bytes:
    lines = (b"POST /echo HTTP/1.1", b"Host: a", b"Content-Length: %d" % len(body), *headers)
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


ECHO = [
    Route("POST", "/echo", lambda request: HttpResponse(200, (request.body,))),
    Route("GET", "/hello", lambda request: HttpResponse(200, (b"hello",))),
]
REQUESTS = (
    post(b"one")
    + GET
    + b"\r\nPOST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    + b"3\r\ntwo\r\n5;e=1\r\nthree\r\n0\r\nT: t\r\n\r\n"
    + b"HEAD /hello HTTP/1.1\r\nHost: a\r\n\r\n"
    + b"GET /nope HTTP/1.1\r\nHost: a\r\n\r\n"
    + post(b"z" * 300, b"Connection: close")
)


def exchange(pieces: list[bytes]) -> bytes:
    """What a server of its own answers when its connection receives ``pieces``, one read after the other."""

    class Wire(asyncio.Transport):
        def __init__(self) -> None:
            super().__init__()
            self.written = b""
            self.closed = False
            self.paused = False

        def write(self, data: Any) -> None:
            self.written += data

        def is_closing(self) -> bool:
            return self.closed

        def close(self) -> None:
            self.closed = True

        def can_write_eof(self) -> bool:
            return True

        def write_eof(self) -> None: ...

        def get_write_buffer_size(self) -> int:
            return 0

        def pause_reading(self) -> None:
            self.paused = True

        def resume_reading(self) -> None:
            self.paused = False

    async def run() -> bytes:
        hub = Hub(Router(ECHO), Limits.of(Settings.of(OPTIONS)))
        connection = Connection(hub)
        wire = Wire()
        connection.connection_made(wire)
        for piece in pieces:
            offset = 0
            while offset < len(piece) and not wire.closed:
                assert not wire.paused
                buffer = memoryview(connection.get_buffer(-1))
                size = min(len(buffer), len(piece) - offset)
                assert size
                buffer[:size] = piece[offset : offset + size]
                connection.buffer_updated(size)
                offset += size
        connection.connection_lost(None)
        await hub.drain(0)
        return wire.written

    return asyncio.run(run())


WHOLE = exchange([REQUESTS])


@given(st.sets(st.integers(1, len(REQUESTS) - 1)))
@hypothesis_settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
def test_how_requests_are_cut_into_segments_makes_no_difference(cuts: set[int]) -> None:
    places = [0, *sorted(cuts), len(REQUESTS)]
    pieces = [REQUESTS[a:b] for a, b in pairwise(places)]
    assert exchange(pieces) == WHOLE


def test_the_same_byte_by_byte() -> None:
    assert exchange([bytes([byte]) for byte in REQUESTS]) == WHOLE
    assert WHOLE.count(b"HTTP/1.1 200 OK") == 5
    assert WHOLE.count(b"HTTP/1.1 404 Not Found") == 1
    assert b"twothree" in WHOLE


@pytest.mark.anyio
async def test_segments_on_a_real_socket(serve: Any, connect: Any) -> None:
    async with serve(*ECHO) as transport:
        client = await connect(transport)
        client.writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start in range(0, len(REQUESTS), 7):
            client.send(REQUESTS[start : start + 7])
            await asyncio.sleep(0)
        assert await client.ended() == WHOLE

"""How a connection comes to speak HTTP/2, and what its clients can do to it; how clients learn of HTTP/3."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import h2.config
import h2.connection
import h2.events
import httpx
import pytest
from trivet.http import HttpResponse, Route

pytestmark = pytest.mark.anyio


async def test_http2_is_off_by_default(serve: Any, echo: Any) -> None:
    async with serve(*echo) as transport, httpx.AsyncClient(http1=False, http2=True) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get(transport.addresses["http"][0] + "/hello")


async def test_the_upgrade_from_http11(serve: Any, connect: Any, echo: Any) -> None:
    async with asyncio.timeout(30), serve(*echo, http2=True) as transport:
        client = await connect(transport)
        client.send(b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await client.reply()).body == b"hello"
        h2c = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        settings = h2c.initiate_upgrade_connection()
        assert settings is not None
        client.send(
            b"GET /hello HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
            b"HTTP2-Settings: " + settings + b"\r\n\r\n"
        )
        reply = await client.head()
        assert (reply.status, reply.headers["upgrade"]) == (101, "h2c")
        client.send(h2c.data_to_send())
        body = b""
        ended = False
        while not ended:
            for event in h2c.receive_data(await client.reader.read(65536)):
                if isinstance(event, h2.events.DataReceived):
                    body += event.data or b""
                ended = ended or isinstance(event, h2.events.StreamEnded)
        assert body == b"hello"


async def test_there_is_no_upgrade_within_tls(serve: Any, connect: Any, echo: Any, certificates: Any) -> None:
    async with serve(
        *echo,
        http2=True,
        http_use_ssl=True,
        http_ssl_certificate=str(certificates.certificate),
        http_ssl_key=str(certificates.key),
    ) as transport:
        client = await connect(transport, ssl=certificates.client_context())
        client.send(
            b"GET /hello HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
            b"HTTP2-Settings: AAMAAABk\r\n\r\n"
        )
        assert (await client.reply()).body == b"hello"


async def test_an_upgrade_with_a_body_stays_http11(serve: Any, connect: Any, echo: Any) -> None:
    async with serve(*echo, http2=True) as transport:
        client = await connect(transport)
        client.send(
            b"POST /echo HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
            b"HTTP2-Settings: AAMAAABk\r\nContent-Length: 5\r\n\r\nhello"
        )
        assert (await client.reply()).body == b"hello"


async def test_the_preface_in_pieces(serve: Any, connect: Any, echo: Any) -> None:
    async with asyncio.timeout(30), serve(*echo, http2=True) as transport:
        client = await connect(transport)
        h2c = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        h2c.initiate_connection()
        data = h2c.data_to_send()
        for start in range(0, len(data), 5):
            client.send(data[start : start + 5])
            await asyncio.sleep(0.001)
        assert h2c.receive_data(await client.reader.read(65536))


async def test_http3_is_advertised_on_the_other_versions(serve: Any, echo: Any, certificates: Any) -> None:
    async with serve(
        *echo,
        http2=True,
        http3_port=0,
        http_use_ssl=True,
        http_ssl_certificate=str(certificates.certificate),
        http_ssl_key=str(certificates.key),
    ) as transport:
        url, h3_url = transport.addresses["http"]
        expected = f'h3=":{urlsplit(h3_url).port}"; ma=86400'
        for http2 in (False, True):
            async with httpx.AsyncClient(verify=certificates.client_context(), http2=http2) as client:
                response = await client.get(f"{url}/hello")
                assert response.http_version == ("HTTP/2" if http2 else "HTTP/1.1")
                assert response.headers["alt-svc"] == expected


# --- what its clients do ----------------------------------------------------------------------------------------------


async def test_http2_connections_count(serve: Any, connect: Any, echo: Any) -> None:
    async with serve(*echo, http2=True, http_max_connections=1) as transport:
        url = transport.addresses["http"][0]
        async with httpx.AsyncClient(http1=False, http2=True) as client:
            assert (await client.get(f"{url}/hello")).content == b"hello"
            late = await connect(transport)
            assert (await late.reply()).status == 503


@pytest.mark.parametrize("path", ["/later", "/stream"])
async def test_a_stream_that_an_http2_client_resets(serve: Any, connect: Any, path: str) -> None:
    gone = asyncio.Event()

    def later(request: Any) -> None:
        request.on_disconnect = gone.set
        arrived.put_nowait(None)

    async def chunks() -> AsyncIterator[bytes]:
        arrived.put_nowait(None)
        try:
            while True:  # without ever waiting for anything but its client
                yield b"x" * 100_000
        finally:
            gone.set()

    arrived = asyncio.Queue[None]()
    routes = [
        Route("GET", "/later", later),
        Route("GET", "/stream", lambda request: HttpResponse(stream=chunks())),
        Route("GET", "/hello", lambda request: HttpResponse(200, (b"hello",))),
    ]
    async with asyncio.timeout(30), serve(*routes, http2=True) as transport:
        client = await connect(transport)
        h2c = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        h2c.initiate_connection()
        get = [(":method", "GET"), (":scheme", "http"), (":authority", "a")]
        h2c.send_headers(1, [*get, (":path", path)], end_stream=True)
        client.send(h2c.data_to_send())
        await arrived.get()
        h2c.reset_stream(1)
        h2c.send_headers(3, [*get, (":path", "/hello")], end_stream=True)
        client.send(h2c.data_to_send())
        await gone.wait()
        body = b""
        while body != b"hello":
            for event in h2c.receive_data(await client.reader.read(65536)):
                if isinstance(event, h2.events.DataReceived) and event.stream_id == 3:
                    body += event.data or b""
            client.send(h2c.data_to_send())  # gives back the window that the reset stream had used up


async def test_http2_garbage_ends_its_connection_only(serve: Any, connect: Any, echo: Any) -> None:
    async with serve(*echo, http2=True) as transport:
        client = await connect(transport)
        headers_of_stream_0 = b"\x00\x00\x00\x01\x04\x00\x00\x00\x00"
        client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + headers_of_stream_0)
        await client.ended()
        other = await connect(transport)
        other.send(b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await other.reply()).body == b"hello"


async def test_stopping_lets_http2_requests_finish(serve: Any) -> None:
    arrived = asyncio.Queue[Any]()
    async with (
        asyncio.timeout(30),
        serve(Route("GET", "/", arrived.put_nowait), http2=True) as transport,
        httpx.AsyncClient(http1=False, http2=True, base_url=transport.addresses["http"][0]) as client,
    ):
        answer = asyncio.create_task(client.get("/"))
        request = await arrived.get()
        stopping = asyncio.create_task(transport.stop(20))
        await asyncio.sleep(0)
        request.respond(HttpResponse(200, (b"done",)))
        assert (await answer).content == b"done"
        await stopping

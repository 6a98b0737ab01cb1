"""One set of handlers over every version of HTTP: what a handler does is the same on all lanes."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from aioquic.asyncio.client import connect as quic_connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, H3Event, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import QuicEvent, StreamReset
from trivet.http import HttpResponse, Route

pytestmark = pytest.mark.anyio

LANES = ("http/1.1", "https/1.1", "h2c", "h2", "h3")


class Answer:
    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body


class HttpxClient:
    """HTTP/1.1 and HTTP/2."""

    def __init__(self, client: httpx.AsyncClient, version: str) -> None:
        self._client = client
        self._version = version

    async def request(self, method: str, target: str, body: bytes = b"", headers: Any = ()) -> Answer:
        response = await self._client.request(method, target, content=body, headers=list(headers))
        assert response.http_version == self._version
        return Answer(response.status_code, dict(response.headers), response.content)

    async def leave(self) -> None:
        await self._client.aclose()

    @asynccontextmanager
    async def streaming(self, target: str) -> AsyncIterator[AsyncIterator[bytes]]:
        async with self._client.stream("GET", target) as response:
            yield response.aiter_raw()


class H3Client(QuicConnectionProtocol):
    """HTTP/3."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._h3 = H3Connection(self._quic)
        self._events: dict[int, asyncio.Queue[H3Event | StreamReset]] = {}

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, StreamReset):
            self._events[event.stream_id].put_nowait(event)
        for h3_event in self._h3.handle_event(event):
            if isinstance(h3_event, HeadersReceived | DataReceived):
                self._events[h3_event.stream_id].put_nowait(h3_event)

    def _send(self, method: str, target: str, body: bytes, headers: Any) -> int:
        stream = self._quic.get_next_available_stream_id()
        self._events[stream] = asyncio.Queue()
        pseudo = [(":method", method), (":scheme", "https"), (":authority", "localhost"), (":path", target)]
        fields = [(name.lower().encode(), value.encode()) for name, value in (*pseudo, *headers)]
        self._h3.send_headers(stream, fields, end_stream=not body)
        if body:
            self._h3.send_data(stream, body, end_stream=True)
        self.transmit()
        return stream

    async def _parts(self, stream: int) -> AsyncIterator[H3Event]:
        while True:
            event = await self._events[stream].get()
            assert isinstance(event, HeadersReceived | DataReceived), event
            yield event
            if event.stream_ended:
                return

    async def request(self, method: str, target: str, body: bytes = b"", headers: Any = ()) -> Answer:
        answer = Answer(0, {}, b"")
        async for event in self._parts(self._send(method, target, body, headers)):
            if isinstance(event, HeadersReceived):
                answer.headers = {name.decode(): value.decode() for name, value in event.headers}
                answer.status = int(answer.headers.pop(":status"))
            elif isinstance(event, DataReceived):
                answer.body += event.data
        return answer

    async def leave(self) -> None:
        self.close()
        await self.wait_closed()

    @asynccontextmanager
    async def streaming(self, target: str) -> AsyncIterator[AsyncIterator[bytes]]:
        stream = self._send("GET", target, b"", ())
        parts = self._parts(stream)

        async def data() -> AsyncIterator[bytes]:
            async for event in parts:
                if isinstance(event, DataReceived):
                    yield event.data

        yield data()


@pytest.fixture(params=LANES)
def lane(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def open_lane(lane: str, serve: Any, certificates: Any) -> Any:
    """``async with open_lane(*routes, **settings) as client``: a server and a client of the version under test."""

    @asynccontextmanager
    async def open_lane(*routes: Route, **settings: Any) -> AsyncIterator[Any]:
        if lane in {"https/1.1", "h2", "h3"}:
            settings |= {
                "http_use_ssl": True,
                "http_ssl_certificate": str(certificates.certificate),
                "http_ssl_key": str(certificates.key),
            }
        settings["http2"] = True
        if lane == "h3":
            settings["http3_port"] = 0
        async with asyncio.timeout(60), serve(*routes, **settings) as transport:
            addresses = transport.addresses["http"]
            if lane == "h3":
                url = urlsplit(addresses[1])
                assert url.scheme == "https+h3"
                configuration = QuicConfiguration(is_client=True, alpn_protocols=H3_ALPN, server_name="localhost")
                configuration.load_verify_locations(str(certificates.ca))
                async with quic_connect(
                    url.hostname, url.port, configuration=configuration, create_protocol=H3Client
                ) as client:
                    yield client
            else:
                two = lane in {"h2c", "h2"}
                async with httpx.AsyncClient(
                    base_url=addresses[0],
                    verify=certificates.client_context() if lane != "h2c" else ssl.create_default_context(),
                    http1=not lane.startswith("h2c"),
                    http2=two,
                    timeout=30,
                ) as httpx_client:
                    yield HttpxClient(httpx_client, "HTTP/2" if two else "HTTP/1.1")

    return open_lane


async def test_a_request_and_its_answer(open_lane: Any) -> None:
    seen = []

    def handler(request: Any) -> HttpResponse:
        seen.append(request)
        return HttpResponse(201, (b"he", memoryview(b"llo")), ((b"content-type", b"text/plain"), (b"x-two", b"2")))

    async with open_lane(Route("POST", "/m/{model}/infer", handler)) as client:
        answer = await client.request("POST", "/m/a%2Fb/infer?x=%20y", b"body", [("X-One", "1"), ("X-One", "one")])
    assert (answer.status, answer.body) == (201, b"hello")
    assert answer.headers["content-type"] == "text/plain"
    assert answer.headers["content-length"] == "5"
    assert answer.headers["x-two"] == "2"
    assert not {"date", "server"} & answer.headers.keys()
    (request,) = seen
    assert (request.method, request.path, request.query, bytes(request.body)) == (
        "POST",
        "/m/a/b/infer",
        b"x=%20y",
        b"body",
    )
    assert dict(request.params) == {"model": "a/b"}
    assert request.headers[b"x-one"] == b"1, one"
    assert b"host" in request.headers
    assert request.received_ns > 0


async def test_requests_one_after_the_other(open_lane: Any, echo: Any) -> None:
    async with open_lane(*echo) as client:
        for size in (0, 1, 1000, 70_000, 500_000):
            body = bytes(range(250)) * (size // 250)
            answer = await client.request("POST", "/echo", body)
            assert (answer.status, answer.body) == (200, body)


async def test_requests_at_the_same_time(open_lane: Any, echo: Any) -> None:
    async with open_lane(*echo) as client:
        answers = await asyncio.gather(*(client.request("POST", "/echo", b"%d" % n) for n in range(20)))
        assert [answer.body for answer in answers] == [b"%d" % n for n in range(20)]


async def test_answers_that_come_later(open_lane: Any) -> None:
    arrived = asyncio.Queue[Any]()

    async with open_lane(Route("GET", "/{name}", arrived.put_nowait)) as client:
        waiting = [asyncio.create_task(client.request("GET", f"/{name}")) for name in "abc"]
        requests = [await arrived.get() for _ in waiting]
        for request in reversed(requests):
            request.respond(HttpResponse(200, (request.params["name"].encode(),)))
            with pytest.raises(RuntimeError, match="answered before"):
                request.respond(HttpResponse())
        assert [(await task).body for task in waiting] == [b"a", b"b", b"c"]


async def test_coroutines(open_lane: Any) -> None:
    async def handler(request: Any) -> HttpResponse:
        await asyncio.sleep(0)
        return HttpResponse(200, (b"done",))

    async with open_lane(Route("GET", "/", handler)) as client:
        assert (await client.request("GET", "/")).body == b"done"


async def _raises(request: Any) -> HttpResponse:
    raise ValueError("in a coroutine")


@pytest.mark.parametrize(
    "handler",
    [
        lambda request: 1 / 0,
        _raises,
        lambda request: HttpResponse(200, (), ((b"x", b"a\r\nb: c"),)),
        lambda request: HttpResponse(200, (), ((b"content-length", b"5"),)),
        lambda request: HttpResponse(204, (b"body",)),
        lambda request: 5,
    ],
)
async def test_a_handler_that_fails(open_lane: Any, echo: Any, caplog: Any, handler: Any) -> None:
    async with open_lane(*echo, Route("GET", "/bad", handler)) as client:
        answer = await client.request("GET", "/bad")
        assert (answer.status, answer.headers["content-type"]) == (500, "application/json")
        assert answer.body == b'{"error": "internal server error; the server\'s log has the details"}'
        assert (await client.request("GET", "/hello")).body == b"hello"
    (record,) = caplog.records
    assert record.name.startswith("trivet_transport_http.")
    assert record.exc_info is not None


async def test_what_is_not_there(open_lane: Any, echo: Any) -> None:
    async with open_lane(*echo) as client:
        answer = await client.request("GET", "/nope")
        assert (answer.status, answer.body) == (404, b'{"error": "Not Found"}')
        answer = await client.request("PUT", "/hello")
        assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


async def test_head(open_lane: Any, lane: str, echo: Any) -> None:
    if lane == "h3":
        pytest.skip("aioquic's client takes the content-length of an answer to HEAD for an error")
    async with open_lane(*echo) as client:
        answer = await client.request("HEAD", "/hello")
        assert (answer.status, answer.headers["content-length"], answer.body) == (200, "5", b"")
        assert (await client.request("GET", "/hello")).body == b"hello"


async def test_limits(open_lane: Any, echo: Any) -> None:
    async with open_lane(*echo, http_max_body_size=1000, http_max_url_length=100, http_max_header_count=20) as client:
        assert (await client.request("POST", "/echo", b"x" * 1000)).status == 200
        answer = await client.request("POST", "/echo", b"x" * 1001)
        assert (answer.status, answer.headers["content-type"]) == (413, "application/json")
        assert (await client.request("POST", "/echo", b"x" * 200_000)).status == 413
        assert (await client.request("GET", "/" + "x" * 100)).status == 414
        assert (await client.request("GET", "/hello", headers=[(f"x-{n}", "y") for n in range(20)])).status == 431
        assert (await client.request("GET", "/hello")).body == b"hello"


async def test_a_stream(open_lane: Any) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for chunk in (b"one", b"", b"two", b"x" * 200_000):
            await asyncio.sleep(0)
            yield chunk

    def handler(request: Any) -> HttpResponse:
        return HttpResponse(headers=((b"content-type", b"text/event-stream"),), stream=chunks())

    async with open_lane(Route("GET", "/", handler)) as client:
        answer = await client.request("GET", "/")
        assert answer.headers["content-type"] == "text/event-stream"
        assert "content-length" not in answer.headers
        assert answer.body == b"onetwo" + b"x" * 200_000
        assert (await client.request("HEAD", "/")).body == b""


async def test_chunks_arrive_when_they_are_made(open_lane: Any) -> None:
    taken = asyncio.Queue[None]()

    async def chunks() -> AsyncIterator[bytes]:
        for number in range(5):
            yield b"%d" % number
            await taken.get()

    async with (
        open_lane(Route("GET", "/", lambda request: HttpResponse(stream=chunks()))) as client,
        client.streaming("/") as received,
    ):
        async for chunk in received:
            if chunk:
                taken.put_nowait(None)


@pytest.mark.parametrize("path", ["/cancellable", "/coroutine", "/stream"])
async def test_a_client_that_goes_away(open_lane: Any, path: str) -> None:
    arrived = asyncio.Queue[Any]()
    events = asyncio.Queue[str]()

    def cancellable(request: Any) -> None:
        request.on_disconnect = lambda: events.put_nowait("/cancellable")
        arrived.put_nowait(request)

    async def coroutine(request: Any) -> HttpResponse:
        arrived.put_nowait(request)
        try:
            await asyncio.Event().wait()
        finally:
            events.put_nowait("/coroutine")
        raise AssertionError

    async def chunks() -> AsyncIterator[bytes]:
        arrived.put_nowait(None)
        try:
            while True:
                yield b"x" * 100
                await asyncio.sleep(0.001)
        finally:
            events.put_nowait("/stream")

    routes = [
        Route("GET", "/cancellable", cancellable),
        Route("GET", "/coroutine", coroutine),
        Route("GET", "/stream", lambda request: HttpResponse(stream=chunks())),
    ]
    async with open_lane(*routes) as client:
        waiting = asyncio.create_task(client.request("GET", path))
        request = await arrived.get()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await client.leave()
        assert await events.get() == path
        if path == "/cancellable":
            request.respond(HttpResponse())
    assert events.empty()

"""The HTTP/1.1 lane, byte by byte: framing, order, connections that stay or go, answers that come later."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from trivet.http import HttpResponse, Route

pytestmark = pytest.mark.anyio

GET = b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n"


def post(body: bytes, *headers: bytes) -> bytes:
    lines = (b"POST /echo HTTP/1.1", b"Host: a", b"Content-Length: %d" % len(body), *headers)
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


class Later:
    """A handler that keeps its requests, to be answered by the test."""

    def __init__(self) -> None:
        self.requests: asyncio.Queue[Any] = asyncio.Queue()
        self.gone: asyncio.Queue[Any] = asyncio.Queue()

    def __call__(self, request: Any) -> None:
        self.requests.put_nowait(request)

    def cancellable(self, request: Any) -> None:
        request.on_disconnect = lambda: self.gone.put_nowait(request)
        self.requests.put_nowait(request)

    async def next(self) -> Any:
        async with asyncio.timeout(20):
            return await self.requests.get()


async def test_requests_one_after_the_other_on_one_connection(serve: Any, connect: Any, echo: Any) -> None:
    async with serve(*echo) as transport:
        client = await connect(transport)
        for body in (b"", b"x", b"y" * 1000):
            client.send(post(body))
            reply = await client.reply()
            assert (reply.status, reply.body) == (200, body)
            assert reply.headers == {"content-type": "application/octet-stream", "content-length": str(len(body))}


async def test_what_a_handler_sees(serve: Any, connect: Any) -> None:
    seen = []

    def handler(request: Any) -> HttpResponse:
        seen.append(request)
        return HttpResponse()

    async with serve(Route("PUT", "/m/{model}", handler)) as transport:
        client = await connect(transport)
        client.send(b"PUT /m/a%2fb?q=%20 HTTP/1.1\r\nHost: h\r\nX-A: 1\r\nx-a: 2\r\nContent-Length: 2\r\n\r\nhi")
        assert (await client.reply()).status == 200
    (request,) = seen
    assert (request.method, request.path, request.query, bytes(request.body)) == ("PUT", "/m/a/b", b"q=%20", b"hi")
    assert request.params == {"model": "a/b"}
    assert request.headers == {b"host": b"h", b"x-a": b"1, 2", b"content-length": b"2"}
    assert request.received_ns > 0


async def test_pipelined_requests_are_answered_in_order(serve: Any, connect: Any, echo: Any) -> None:
    async with serve(*echo) as transport:
        client = await connect(transport)
        bodies = [b"%d" % number * number for number in range(200)]
        client.send(b"".join(post(body) for body in bodies))
        assert [(await client.reply()).body for _ in bodies] == bodies


async def test_a_pipelined_request_waits_for_the_answer_to_the_one_before(serve: Any, connect: Any, echo: Any) -> None:
    later = Later()
    async with serve(*echo, Route("GET", "/later", later)) as transport:
        client = await connect(transport)
        client.send(b"GET /later HTTP/1.1\r\nHost: a\r\n\r\n" * 2 + post(b"last"))
        first = await later.next()
        assert later.requests.empty()
        first.respond(HttpResponse(200, (b"first",)))
        second = await later.next()
        second.respond(HttpResponse(200, (b"second",)))
        assert [(await client.reply()).body for _ in range(3)] == [b"first", b"second", b"last"]


async def test_a_client_cannot_send_ahead_without_bounds(serve: Any, connect: Any, echo: Any, until: Any) -> None:
    later = Later()
    async with serve(*echo, Route("GET", "/later", later)) as transport:
        client = await connect(transport)
        client.send(b"GET /later HTTP/1.1\r\nHost: a\r\n\r\n")
        request = await later.next()
        many = 20_000
        client.send(GET * many)
        (connection,) = transport._hubs[0].connections
        await until(lambda: connection._pending is not None)
        for _ in range(100):
            await asyncio.sleep(0)
            assert len(connection._pending) <= 64 * 1024
        request.respond(HttpResponse(200, (b"later",)))
        assert (await client.reply()).body == b"later"
        for _ in range(many):
            assert (await client.reply()).body == b"hello"


async def test_respond_within_the_handler(serve: Any, connect: Any) -> None:
    def handler(request: Any) -> None:
        request.respond(HttpResponse(200, (b"now",)))

    async with serve(Route("GET", "/", handler)) as transport:
        client = await connect(transport)
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 3)
        assert [(await client.reply()).body for _ in range(3)] == [b"now"] * 3


async def test_answering_twice_is_an_error_of_the_handler(serve: Any, connect: Any, caplog: Any) -> None:
    later = Later()

    def twice(request: Any) -> HttpResponse:
        request.respond(HttpResponse(200, (b"first",)))
        return HttpResponse(200, (b"second",))

    async with serve(Route("GET", "/later", later), Route("GET", "/twice", twice)) as transport:
        client = await connect(transport)
        client.send(b"GET /later HTTP/1.1\r\nHost: a\r\n\r\n")
        request = await later.next()
        request.respond(HttpResponse(200, (b"first",)))
        with pytest.raises(RuntimeError, match="answered before"):
            request.respond(HttpResponse(200, (b"second",)))
        client.send(b"GET /twice HTTP/1.1\r\nHost: a\r\n\r\n" * 2)
        assert [(await client.reply()).body for _ in range(3)] == [b"first"] * 3
    assert caplog.messages == ["the handler of GET /twice answered twice; the second answer is dropped"] * 2


@pytest.mark.parametrize(
    "handler",
    [
        lambda request: 1 / 0,
        lambda request: HttpResponse(200, (), ((b"x", b"a\r\nset-cookie: evil"),)),
        lambda request: HttpResponse(200, (), ((b"x: y\r\nz", b"a"),)),
        lambda request: HttpResponse(200, (), ((b"content-length", b"5"),)),
        lambda request: HttpResponse(200, (), ((b"transfer-encoding", b"chunked"),)),
        lambda request: HttpResponse(204, (b"a body",)),
        lambda request: HttpResponse(200, ("text",)),  # type: ignore[arg-type]
        lambda request: request,
    ],
)
async def test_a_handler_that_fails_is_a_500_and_nothing_else(
    serve: Any, connect: Any, echo: Any, caplog: Any, handler: Any
) -> None:
    async with serve(*echo, Route("GET", "/bad", handler)) as transport:
        client = await connect(transport)
        client.send(b"GET /bad HTTP/1.1\r\nHost: a\r\n\r\n" + GET)
        reply = await client.reply()
        assert (reply.status, reply.headers["content-type"]) == (500, "application/json")
        assert reply.body == b'{"error": "internal server error; the server\'s log has the details"}'
        assert (await client.reply()).body == b"hello"
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("trivet_transport_http.request", logging.ERROR)
    assert record.exc_info is not None


async def test_a_coroutine_runs_in_a_task_of_its_own(serve: Any, connect: Any, caplog: Any) -> None:
    async def handler(request: Any) -> HttpResponse:
        await asyncio.sleep(0)
        if request.query:
            raise ValueError("no")
        return HttpResponse(200, (b"done",))

    async with serve(Route("GET", "/", handler)) as transport:
        client = await connect(transport)
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /?fail HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await client.reply()).body == b"done"
        assert (await client.reply()).status == 500
    assert "ValueError: no" in caplog.text


# --- connections ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "connection"),
    [
        (b"GET /hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "close"),
        (b"GET /hello HTTP/1.0\r\n\r\n", "close"),
        (b"GET /hello HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "keep-alive"),
        (GET, None),
    ],
)
async def test_connections_that_stay_and_go(
    serve: Any, connect: Any, echo: Any, request_: bytes, connection: str | None
) -> None:
    async with serve(*echo) as transport:
        client = await connect(transport)
        client.send(request_)
        reply = await client.reply()
        assert (reply.body, reply.headers.get("connection")) == (b"hello", connection)
        if connection == "close":
            assert await client.ended() == b""
        else:
            client.send(GET)
            assert (await client.reply()).body == b"hello"


async def test_head_is_get_without_the_body(serve: Any, connect: Any, echo: Any) -> None:
    async with serve(*echo) as transport:
        client = await connect(transport)
        client.send(GET.replace(b"GET", b"HEAD") + GET)
        reply = await client.reply(to_head=True)
        assert (reply.status, reply.headers["content-length"]) == (200, "5")
        assert (await client.reply()).body == b"hello"


async def test_unknown_paths_and_methods(serve: Any, connect: Any, echo: Any) -> None:
    async with serve(*echo) as transport:
        client = await connect(transport)
        client.send(
            b"GET /nope HTTP/1.1\r\nHost: a\r\n\r\nPUT /hello HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx"
        )
        reply = await client.reply()
        assert (reply.status, reply.body) == (404, b'{"error": "Not Found"}')
        reply = await client.reply()
        assert (reply.status, reply.body) == (405, b'{"error": "Method Not Allowed"}')
        assert reply.headers["allow"] == "GET, HEAD"
        client.send(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n" + GET)
        reply = await client.reply()
        assert (reply.status, reply.headers) == (204, {"allow": "GET, HEAD, POST"})
        assert (await client.reply()).body == b"hello"


async def test_a_status_without_a_name(serve: Any, connect: Any) -> None:
    async with serve(Route("GET", "/", lambda request: HttpResponse(299))) as transport:
        client = await connect(transport)
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await client.reply()).status == 299


async def test_a_client_that_stops_sending_still_gets_its_answer(serve: Any, connect: Any, echo: Any) -> None:
    later = Later()
    async with serve(*echo, Route("GET", "/later", later)) as transport:
        client = await connect(transport)
        client.send(b"GET /later HTTP/1.1\r\nHost: a\r\n\r\n" + GET)
        client.writer.write_eof()
        request = await later.next()
        await asyncio.sleep(0)
        request.respond(HttpResponse(200, (b"later",)))
        assert (await client.reply()).body == b"later"
        assert (await client.reply()).body == b"hello"
        assert await client.ended() == b""


async def test_a_client_that_goes_calls_off_what_can_be_called_off(serve: Any, connect: Any) -> None:
    later = Later()
    async with serve(Route("GET", "/", later.cancellable)) as transport:
        client = await connect(transport)
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        request = await later.next()
        await client.close()
        async with asyncio.timeout(20):
            assert await later.gone.get() is request
        request.respond(HttpResponse(200, (b"nobody reads this",)))
        await transport.stop(0)
        assert later.gone.empty()


async def test_a_reset_connection_calls_off_too(serve: Any, connect: Any) -> None:
    later = Later()
    async with serve(Route("GET", "/", later.cancellable)) as transport:
        client = await connect(transport)
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        request = await later.next()
        client.writer.transport.abort()
        async with asyncio.timeout(20):
            assert await later.gone.get() is request


async def test_on_disconnect_is_not_called_after_the_answer(serve: Any, connect: Any) -> None:
    later = Later()
    async with serve(Route("GET", "/", later.cancellable)) as transport:
        client = await connect(transport)
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        (await later.next()).respond(HttpResponse(200, (b"x",)))
        assert (await client.reply()).body == b"x"
        await client.close()
        await transport.stop(5)
        assert later.gone.empty()


async def test_a_failing_on_disconnect_is_logged(serve: Any, connect: Any, caplog: Any) -> None:
    later = Later()

    def handler(request: Any) -> None:
        request.on_disconnect = lambda: 1 / 0
        later(request)

    async with serve(Route("GET", "/", handler)) as transport:
        client = await connect(transport)
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await later.next()
        await client.close()
        await transport.stop(5)
    assert caplog.messages == ["on_disconnect of GET / failed"]


async def test_a_client_that_goes_cancels_the_coroutine(serve: Any, connect: Any) -> None:
    started = asyncio.Event()
    cancelled = asyncio.Event()

    async def handler(request: Any) -> HttpResponse:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        raise AssertionError

    async with serve(Route("GET", "/", handler)) as transport:
        client = await connect(transport)
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        async with asyncio.timeout(20):
            await started.wait()
            await client.close()
            await cancelled.wait()


# --- bodies -----------------------------------------------------------------------------------------------------------


async def test_chunked_bodies(serve: Any, connect: Any, echo: Any) -> None:
    async with serve(*echo) as transport:
        client = await connect(transport)
        head = b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        client.send(head + b"5\r\nhello\r\n6;x\r\n world\r\n0\r\nX-T: 1\r\n\r\n" + head + b"0\r\n\r\n" + GET)
        assert [(await client.reply()).body for _ in range(3)] == [b"hello world", b"", b"hello"]


async def test_a_client_may_ask_before_it_sends(serve: Any, connect: Any, echo: Any) -> None:
    async with serve(*echo, http_max_body_size=10) as transport:
        client = await connect(transport)
        for framing, body in (
            (b"Content-Length: 5", b"hello"),
            (b"Transfer-Encoding: chunked", b"1\r\nx\r\n0\r\n\r\n"),
        ):
            client.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n" + framing + b"\r\n\r\n")
            assert (await client.reply()).status == 100
            client.send(body)
            assert (await client.reply()).status == 200
        client.send(post(b"hello", b"Expect: 100-continue"))  # one that does not wait
        assert (await client.reply()).body == b"hello"
        client.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 50\r\n\r\n")
        assert (await client.reply()).status == 413


async def test_line_breaks_between_requests_are_skipped(serve: Any, connect: Any, echo: Any, until: Any) -> None:
    async with serve(*echo) as transport:
        client = await connect(transport)
        client.send(post(b"x") + b"\r\n" + GET + b"\r\n")
        assert [(await client.reply()).body for _ in range(2)] == [b"x", b"hello"]
        (connection,) = transport._hubs[0].connections
        await until(lambda: connection.is_idle)  # and not at the beginning of a head
        client.send(GET)
        assert (await client.reply()).body == b"hello"


async def test_a_body_of_several_buffers(serve: Any, connect: Any) -> None:
    sizes = (1, 0, 100_000, 0, 7)

    def handler(request: Any) -> HttpResponse:
        body = [bytes([65 + i]) * size for i, size in enumerate(sizes)]
        return HttpResponse(200, (body[0], b"", memoryview(body[2]).cast("H"), memoryview(b""), bytearray(body[4])))

    async with serve(Route("GET", "/", handler)) as transport:
        client = await connect(transport)
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 2)
        for _ in range(2):
            assert (await client.reply()).body == b"A" + b"C" * 100_000 + b"E" * 7


async def test_the_next_request_waits_until_a_large_answer_is_taken(
    serve: Any, connect: Any, echo: Any, until: Any
) -> None:
    large = b"x" * 30_000_000
    async with serve(*echo, Route("GET", "/large", lambda request: HttpResponse(200, (large,)))) as transport:
        client = await connect(transport)
        client.writer.transport.pause_reading()
        client.send(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n" + GET)
        (connection,) = transport._hubs[0].connections
        await until(lambda: connection._write_paused)
        client.writer.transport.resume_reading()
        assert (await client.reply()).body == large
        assert (await client.reply()).body == b"hello"

"""The same router and handlers as an ASGI application, for servers that speak other versions of HTTP."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from time import perf_counter_ns
from typing import Any

from trivet.http import Body, Header, HttpResponse

from trivet_transport_http.disconnection import tell_disconnected
from trivet_transport_http.errors import (
    LINGER_S,
    HttpError,
    body_too_large,
    body_too_slow,
    internal_error,
    too_many_headers,
    url_too_long,
)
from trivet_transport_http.options import Limits
from trivet_transport_http.responses import check_header, has_body
from trivet_transport_http.router import Match, Router

logger = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

# Bytes of a body that are handed to the server at a time. It copies each piece, and waits for the client after it.
_PIECE = 256 * 1024


class ClientGoneError(Exception):
    """The client reset its stream, or the connection ended."""


class AsgiRequest:
    """:class:`trivet.http.HttpRequest` over an ASGI scope."""

    def __init__(
        self, scope: Message, headers: Mapping[bytes, bytes], match: Match, body: Body, received_ns: int
    ) -> None:
        self.method: str = scope["method"]
        self.path = match.path
        self.query: bytes = scope["query_string"]
        self.headers = headers
        self.body = body
        self.params = match.params
        self.received_ns = received_ns
        self.on_disconnect: Callable[[], None] | None = None
        self.answer: asyncio.Future[HttpResponse] = asyncio.get_running_loop().create_future()

    def respond(self, response: HttpResponse) -> None:
        """Answer. :class:`RuntimeError` if the request was answered before; ignored when the client has gone."""
        if self.answer.cancelled():
            return
        if self.answer.done():
            raise RuntimeError(f"{self.method} {self.path} was answered before")
        if response.stream is None:
            self.on_disconnect = None
        self.answer.set_result(response)

    def abandon(self) -> None:
        """The client has gone: tell whoever works on the answer, once."""
        self.answer.cancel()
        tell_disconnected(self)


class HandlerApp:
    """The ASGI 3 application over a :class:`Router`. One per listener, on its event loop."""

    def __init__(self, router: Router, limits: Limits) -> None:
        self._router = router
        self._limits = limits
        self.busy = 0
        """Requests that are being served."""
        self._idle = asyncio.Event()
        self._idle.set()

    async def idle(self) -> None:
        """Wait until no request is being served."""
        await self._idle.wait()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one request, from its head to the end of its answer."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
            return
        self.busy += 1
        self._idle.clear()
        try:
            await self._serve(scope, receive, send)
        except ClientGoneError:
            pass
        finally:
            self.busy -= 1
            if not self.busy:
                self._idle.set()

    async def _serve(self, scope: Message, receive: Receive, send: Send) -> None:
        received_ns = perf_counter_ns()
        try:
            headers = self._check(scope)
            body = await self._read(headers, receive)
        except HttpError as error:
            await self._refuse(error, receive, send)
            return
        match = self._router.resolve(scope["method"], scope["raw_path"])
        request = AsgiRequest(scope, headers, match, body, received_ns)
        # All that can still come in is the news that the client has gone.
        gone = asyncio.ensure_future(receive())
        work = asyncio.create_task(self._work(request, match, send))
        try:
            await asyncio.wait({gone, work}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            if not work.done():
                request.abandon()
                work.cancel()
        await asyncio.gather(gone, work, return_exceptions=True)

    def _check(self, scope: Message) -> Mapping[bytes, bytes]:
        """The headers by name. :class:`HttpError` for a head that is larger than the limits."""
        limits = self._limits
        if len(scope["raw_path"]) + 1 + len(scope["query_string"]) > limits.max_url_length:
            raise url_too_long(limits.max_url_length)
        headers: dict[bytes, bytes] = {}
        count = 0
        for name, value in scope["headers"]:
            count += 1
            headers[name] = headers[name] + b", " + value if name in headers else value
        if count > limits.max_header_count:
            raise too_many_headers(limits.max_header_count)
        return headers

    async def _read(self, headers: Mapping[bytes, bytes], receive: Receive) -> Body:
        """The whole body. :class:`HttpError` if it is too large or slow, :class:`ClientGoneError` if it ends early."""
        limits = self._limits
        declared = headers.get(b"content-length", b"0")
        if declared.isdigit() and int(declared[:20]) > limits.max_body_size:
            raise body_too_large(limits.max_body_size)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        body = bytearray()
        while True:
            allowed = limits.body_timeout
            if limits.min_body_rate:
                allowed = max(allowed, len(body) / limits.min_body_rate)
            try:
                async with asyncio.timeout_at(begun + allowed):
                    message = await receive()
            except TimeoutError:
                raise body_too_slow() from None
            if message["type"] != "http.request":
                raise ClientGoneError
            body += message["body"]
            if len(body) > limits.max_body_size:
                raise body_too_large(limits.max_body_size)
            if not message["more_body"]:
                return body

    async def _work(self, request: AsgiRequest, match: Match, send: Send) -> None:
        try:
            result = match.handler(request)
            response = await request.answer if result is None else result
            if not isinstance(response, HttpResponse):
                response = await response
            if not isinstance(response, HttpResponse):
                raise TypeError(f"expected an HttpResponse, got {response!r}")
            start = _start(response)
        except Exception:
            logger.exception("the handler of %s %s failed", request.method, request.path)
            response = internal_error()
            start = _start(response)
            tell_disconnected(request)
        if response.stream is None:
            request.on_disconnect = None
        await send(start)
        if response.stream is not None:
            await self._stream(request, response, send)
        elif has_body(response.status):
            for buffer in response.body:
                view = memoryview(buffer)
                if view.nbytes:
                    octets = view.cast("B")
                    for offset in range(0, len(octets), _PIECE):
                        piece = bytes(octets[offset : offset + _PIECE])
                        await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _stream(self, request: AsgiRequest, response: HttpResponse, send: Send) -> None:
        """Send the chunks of a stream, each when the client took the ones before. A stream that fails is reset."""
        stream = response.stream
        assert stream is not None
        try:
            if request.method != "HEAD":
                async for chunk in stream:
                    if chunk:
                        await send({"type": "http.response.body", "body": chunk, "more_body": True})
                    # hypercorn takes what is sent to a client that has gone without a pause. The event loop must run
                    # for us to be told.
                    await asyncio.sleep(0)
        except Exception:
            logger.exception("the stream of %s %s failed", request.method, request.path)
            raise
        finally:
            aclose = getattr(stream, "aclose", None)
            if aclose is not None:
                await aclose()

    async def _refuse(self, error: HttpError, receive: Receive, send: Send) -> None:
        """Answer a request without having read it, and let the client finish sending before the stream ends.

        Servers take data for a stream that has ended as an error of the whole connection.
        """
        response = error.response
        await send(_start(response))
        for piece in response.body:
            await send({"type": "http.response.body", "body": bytes(piece), "more_body": True})
        try:
            async with asyncio.timeout(LINGER_S):
                message = await receive()
                while message["type"] == "http.request" and message["more_body"]:
                    message = await receive()
        except TimeoutError:
            pass
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _start(response: HttpResponse) -> Message:
    """The message that carries status and headers. :class:`ValueError` for a header that no handler may set."""
    headers: list[Header] = list(response.headers)
    for name, value in headers:
        check_header(name, value)
    if response.stream is None:
        size = sum(memoryview(buffer).nbytes for buffer in response.body)
        if has_body(response.status):
            headers.append((b"content-length", b"%d" % size))
        elif size:
            raise ValueError(f"a response of status {response.status} has no body")
    return {"type": "http.response.start", "status": response.status, "headers": headers}

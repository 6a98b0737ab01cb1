"""One request of the HTTP/1.1 lane: what its handler sees, and how its answer goes out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any

from trivet.http import Body, HttpResponse

from trivet_transport_http.disconnection import tell_disconnected
from trivet_transport_http.errors import internal_error
from trivet_transport_http.head import Head
from trivet_transport_http.responses import LAST_CHUNK, encode_chunk

if TYPE_CHECKING:
    from trivet_transport_http.connection import Connection

logger = logging.getLogger(__name__)

_WAITING, _ANSWERED, _GONE = range(3)


class Request:
    """:class:`trivet.http.HttpRequest` over one parsed head. Its mappings are shared between requests and read-only."""

    __slots__ = ("_connection", "_head", "_state", "_task", "body", "on_disconnect", "received_ns")

    def __init__(self, connection: Connection, head: Head, body: Body, received_ns: int) -> None:
        self._connection = connection
        self._head = head
        self._state = _WAITING
        self._task: asyncio.Task[None] | None = None
        self.body = body
        self.received_ns = received_ns
        self.on_disconnect: Callable[[], None] | None = None

    @property
    def method(self) -> str:
        return self._head.method

    @property
    def path(self) -> str:
        return self._head.match.path

    @property
    def query(self) -> bytes:
        return self._head.query

    @property
    def headers(self) -> Mapping[bytes, bytes]:
        return self._head.headers

    @property
    def params(self) -> Mapping[str, str]:
        return self._head.match.params

    def serve(self) -> None:
        """Call the handler and see to what it returns."""
        try:
            result = self._head.match.handler(self)
        except Exception:
            logger.exception("the handler of %s %s failed", self.method, self.path)
            result = internal_error()
        if isinstance(result, HttpResponse):
            self._answer(result)
        elif result is not None:
            self._start(self._await_response(result))

    def respond(self, response: HttpResponse) -> None:
        """Answer. :class:`RuntimeError` if the request was answered before; ignored when the client has gone."""
        if self._state != _WAITING:
            if self._state == _GONE:
                return
            raise RuntimeError(f"{self.method} {self.path} was answered before")
        self._state = _ANSWERED
        stream = response.stream
        if stream is None:
            self.on_disconnect = None
        connection = self._connection
        transport = connection.transport
        if transport.is_closing():
            return
        head = self._head
        keep_alive = head.keep_alive and connection.may_stay and not (stream is not None and head.is_http10)
        encode = connection.hub.responses.encode
        try:
            encoded = encode(response, head, keep_alive)
        except (TypeError, ValueError):
            logger.exception("the answer to %s %s cannot be sent", self.method, self.path)
            stream = None
            tell_disconnected(self)
            encoded = encode(internal_error(), head, keep_alive)
        if isinstance(encoded, bytes):
            transport.write(encoded)
        else:
            transport.writelines(encoded)
        if stream is None:
            connection.answered(keep_alive)
        else:
            self._start(self._stream(stream, keep_alive))

    def abandon(self) -> None:
        """The client has gone: tell whoever works on the answer, once."""
        if self._state == _WAITING:
            self._state = _GONE
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
        tell_disconnected(self)

    @property
    def can_be_abandoned(self) -> bool:
        """Whether somebody would notice that the client has gone."""
        return self._task is not None or self.on_disconnect is not None

    def _answer(self, response: HttpResponse) -> None:
        if self._state == _ANSWERED:
            logger.error("the handler of %s %s answered twice; the second answer is dropped", self.method, self.path)
        else:
            self.respond(response)

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self._task = self._connection.hub.loop.create_task(coroutine)

    async def _await_response(self, awaitable: Awaitable[HttpResponse]) -> None:
        try:
            response = await awaitable
            if not isinstance(response, HttpResponse):
                raise TypeError(f"expected an HttpResponse, got {response!r}")
        except Exception:
            logger.exception("the handler of %s %s failed", self.method, self.path)
            response = internal_error()
        self._task = None
        self._answer(response)

    async def _stream(self, stream: AsyncIterator[bytes], keep_alive: bool) -> None:
        """Write the chunks of ``stream``, each when the client took the ones before."""
        head = self._head
        connection = self._connection
        transport = connection.transport
        try:
            if not head.is_head:
                async for chunk in stream:
                    await connection.writable()
                    if chunk:
                        transport.write(chunk if head.is_http10 else encode_chunk(chunk))
        except Exception:
            # All that can be told a client in the middle of an answer is that it is not whole.
            logger.exception("the stream of %s %s failed", self.method, self.path)
            connection.abort()
            return
        finally:
            aclose = getattr(stream, "aclose", None)
            if aclose is not None:
                await aclose()
        self._task = None
        if not head.is_head and not head.is_http10:
            transport.write(LAST_CHUNK)
        connection.answered(keep_alive)

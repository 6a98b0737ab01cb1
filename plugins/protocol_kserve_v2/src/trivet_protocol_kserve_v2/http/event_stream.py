"""The responses to one request as server-sent events, at the pace of who reads them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator

from trivet.engine import Engine
from trivet.errors import TrivetError
from trivet.http import Header, HttpRequest, HttpResponse
from trivet.inference import InferenceRequest, InferenceResponse

from trivet_protocol_kserve_v2.codec.generate_response import (
    encode_error,
    encode_event,
    encode_generated,
    only_ends,
)
from trivet_protocol_kserve_v2.errors import http_status
from trivet_protocol_kserve_v2.throttle import Throttle

MAX_PENDING_BYTES = 2**20
"""Of events that a stream's client has not taken; with more, its model waits before it answers again. One event may
exceed it. Tokens of a language model never come near, so that a thread which serves many streams is not held up by one
of them, while tensors do not pile up."""

_HEADERS: tuple[Header, ...] = ((b"content-type", b"text/event-stream; charset=utf-8"),)


class EventStream(AsyncIterator[bytes]):
    """One call of ``generate_stream``, on the event loop: answers the call, and is the body of the answer.

    The first response decides the status, as it is sent with the first event: an error that comes later is an event and
    nothing else.
    """

    def __init__(self, engine: Engine, call: HttpRequest) -> None:
        self._engine = engine
        self._call = call
        self._request: InferenceRequest | None = None
        self._throttle = Throttle(0, self._is_full)
        self._events: deque[bytes] = deque()
        self._pending_bytes = 0
        self._started = False
        self._ended = False
        self._more: asyncio.Future[None] | None = None
        """What the transport waits for, while it does."""

    def submit(self, request: InferenceRequest) -> None:
        """Raises :class:`~trivet.errors.TrivetError` where the request is refused; then the stream never begins."""
        self._request = request
        request.on_response = self._respond
        request.throttle = self._throttle
        # Stays in place while the answer is streamed.
        self._call.on_disconnect = self.cancel
        self._engine.submit(request)

    def cancel(self) -> None:
        """The client has gone: cancel what is left of its request, and let the model go that waits for it."""
        self._throttle.open()
        if self._request is not None and not self._ended:
            self._ended = True
            self._engine.cancel(self._request)

    async def __anext__(self) -> bytes:
        """The events that wait, of which there is at least one."""
        while not self._events:
            if self._ended:
                raise StopAsyncIteration
            self._more = asyncio.get_running_loop().create_future()
            await self._more
        events = b"".join(self._events)
        self._events.clear()
        self._pending_bytes = 0
        self._throttle.recheck()
        return events

    async def aclose(self) -> None:
        """The transport asks for no more, for whatever reason."""
        self.cancel()

    def _respond(self, request: InferenceRequest, response: InferenceResponse) -> None:
        """The engine's callback."""
        if self._ended:
            return
        status = 200
        event = b""
        try:
            if not only_ends(request, response):
                event = encode_event(encode_generated(request, response))
        except TrivetError as error:
            status, event = http_status(error), encode_event(encode_error(error))
            error.__traceback__ = None  # as in error_response()
        if event:
            self._events.append(event)
            self._pending_bytes += len(event)
        self._throttle.delivered()
        if response.final:
            self._ended = True
            self._throttle.open()
        if not self._started:
            self._started = True
            self._call.respond(HttpResponse(status, (), _HEADERS, stream=self))
        elif self._more is not None and not self._more.done():
            self._more.set_result(None)

    def _is_full(self) -> bool:
        return self._pending_bytes >= MAX_PENDING_BYTES

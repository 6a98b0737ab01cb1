"""One HTTP/1.1 connection: callbacks all the way, and no task unless a handler asks for one.

Requests of a connection are handled one after the other, so answers come in order and a pipelining client cannot make
us hold more than one receive buffer of what it sent ahead. A body that is not all there when its head is read is
received straight into a buffer of its own size, past every parser.
"""

from __future__ import annotations

import asyncio
import math
from time import perf_counter_ns
from typing import cast

import numpy as np
from trivet.http import Body

from trivet_transport_http.chunked import ChunkedDecoder
from trivet_transport_http.errors import LINGER_S, HttpError, body_too_slow
from trivet_transport_http.head import CHUNKED, Head
from trivet_transport_http.hub import Hub
from trivet_transport_http.request import Request
from trivet_transport_http.responses import CONTINUE

# What the connection is doing:
_READY = 0  # between requests, or somewhere in a head
_BODY = 1  # receiving a body of known length into its own buffer
_CHUNKS = 2  # receiving a chunked body
_BUSY = 3  # a handler is at work, or an answer is being streamed
_FLUSHING = 4  # the answer is given, the client has yet to take it
_CLOSING = 5  # the last answer is given; closes when it is out
_LINGERING = 6  # refused: the answer is out, and what still comes is thrown away until the client has read it
_CLOSED = 7

_RECEIVING = frozenset((_READY, _CHUNKS))  # what comes is for _advance
_INCOMPLETE = frozenset((_READY, _BODY, _CHUNKS))  # nothing but the client can bring it on

# Bytes from which a body's buffer is numpy's, whose memory is not touched before data comes.
_LARGE = 64 * 1024
_PREFACE = b"PRI * HTTP/2.0\r\n\r\n"


class Connection(asyncio.BufferedProtocol):
    """The protocol object of one accepted connection. Lives on its hub's event loop."""

    __slots__ = (
        "_advancing",
        "_body",
        "_decoder",
        "_eof",
        "_head",
        "_pending",
        "_received_ns",
        "_request",
        "_rest",
        "_since",
        "_state",
        "_unsent",
        "_writable",
        "_write_paused",
        "deadline",
        "hub",
        "transport",
    )

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self._state = _READY
        self._pending: bytearray | None = None
        """Received and not used yet: the beginning of a head or chunk, or requests sent ahead."""
        self._rest: memoryview | None = None
        """The part of the body's buffer that is still to be received."""
        self._body: Body = b""
        self._decoder: ChunkedDecoder | None = None
        self._request: Request | None = None
        """The request at work, as long as its client is there."""
        self._writable: asyncio.Future[None] | None = None
        self._write_paused = False
        self._advancing = False
        self._eof = False
        self._unsent = 0
        self.deadline = math.inf
        """On the loop's clock: when :meth:`expire` is due."""

    # --- the transport's side ---------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Accepted; with TLS, after the handshake."""
        hub = self.hub
        self.transport = cast("asyncio.Transport", transport)
        if hub.closing or not hub.admit(self):
            reason = "the server is shutting down" if hub.closing else "too many connections (--http-max-connections)"
            self._answer_error(HttpError(503, reason))
            self.transport.close()
            return
        self.deadline = hub.loop.time() + hub.limits.header_timeout
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and tls.selected_alpn_protocol() == "h2":
            self._hand_over(b"")

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next read goes: the body's own buffer while a body is received, else the shared one.

        A view in both cases: asyncio's TLS reads into slices of it, and a slice of a bytearray would be a copy.
        """
        rest = self._rest
        return self.hub.view if rest is None else rest

    def buffer_updated(self, nbytes: int) -> None:
        """``nbytes`` were read into what :meth:`get_buffer` gave."""
        rest = self._rest
        if rest is not None:
            if nbytes < len(rest):
                self._rest = rest[nbytes:]
                return
            body, self._body, self._rest = self._body, b"", None
            self._handle(self._head, body, self._received_ns)
            return
        hub = self.hub
        pending = self._pending
        if pending is None:
            if self._state in _RECEIVING:
                used = self._advance(hub.buffer, hub.view, nbytes, 0)
                if used < nbytes:
                    self._keep(hub.buffer[used:nbytes])
            elif self._state < _CLOSING:
                self._keep(hub.buffer[:nbytes])
        else:
            scanned = len(pending) if self._state == _READY else 0
            pending += hub.view[:nbytes]
            self._work_off(scanned)

    def eof_received(self) -> bool:
        """The client sends no more. Returns whether the connection stays open for us to write."""
        state = self._state
        if state in {_BODY, _CHUNKS}:
            self._answer_error(HttpError(400, "the connection ended in the middle of the body"))
        elif state in {_BUSY, _FLUSHING}:
            # A client that has gone and one that only stops sending look alike. Work that can be called off is
            # called off; an answer that is on its way, or that comes anyway, is still delivered.
            request = self._request
            if (request is None or not request.can_be_abandoned) and self.transport.can_write_eof():
                self._eof = True
                return True
            self._abandon()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Closed, by either side."""
        self._state = _CLOSED
        self._rest = self._decoder = self._pending = None
        self._body = b""
        self.hub.discard(self)
        self._abandon()

    def pause_writing(self) -> None:
        """The client is slower than we are."""
        self._write_paused = True
        self._unsent = self.transport.get_write_buffer_size()
        self.deadline = self.hub.loop.time() + self.hub.limits.write_timeout

    def resume_writing(self) -> None:
        """The client caught up."""
        self._write_paused = False
        if self._state == _BUSY:
            self.deadline = math.inf
            if self._writable is not None and not self._writable.done():
                self._writable.set_result(None)
        elif self._state == _FLUSHING:
            self._next()
            self._work_off(0)

    # --- receiving --------------------------------------------------------------------------------------------------

    def _advance(self, buffer: bytearray, view: memoryview, end: int, scanned: int) -> int:
        """Work through ``buffer[:end]`` until it is used up or something has to be waited for; return how far.

        ``scanned`` bytes at its beginning were searched for the end of a head before.
        """
        heads = self.hub.heads
        start = 0
        self._advancing = True
        try:
            while start < end:
                if self._state == _READY:
                    found = buffer.find(b"\r\n\r\n", scanned - 3 if scanned > 3 else start, end)
                    scanned = 0
                    if found < 0:
                        if buffer.startswith(b"\r\n", start, end):
                            start += 2
                            continue
                        heads.check_beginning(buffer, start, end)
                        break
                    found += 4
                    raw = bytes(view[start:found])
                    head = heads.lookup(raw)
                    if head is None:
                        if raw.startswith(b"\r\n") and raw[2:4] != b"\r\n":
                            # Some clients end a body with a line break too many (RFC 9112, section 2.2).
                            start += 2
                            continue
                        if raw == _PREFACE and self.hub.http2 is not None:
                            self._hand_over(bytes(view[start:end]))
                            return end
                        head = heads.parse(raw)
                    if head.wants_h2c and self._can_upgrade:
                        self._hand_over(bytes(view[start:end]))
                        return end
                    received_ns = perf_counter_ns()
                    length = head.content_length
                    stop = found + length
                    if length == CHUNKED:
                        start = found
                        self._begin_chunks(head, received_ns)
                    elif stop <= end:
                        start = stop
                        self._handle(head, bytes(view[found:stop]) if length else b"", received_ns)
                    else:
                        self._begin_body(head, view[found:end], received_ns)
                        return end
                elif self._state == _CHUNKS:
                    decoder = cast("ChunkedDecoder", self._decoder)
                    start = decoder.feed(buffer, start, end)
                    if not decoder.done:
                        break
                    self._decoder = None
                    self._handle(self._head, decoder.body, self._received_ns)
                else:
                    break
        except HttpError as error:
            self._refuse(error)
            return end
        finally:
            self._advancing = False
        return start

    def _keep(self, received: bytearray) -> None:
        """Hold what cannot be used yet; read on only if that is what it waits for."""
        if self._state >= _CLOSING:
            return
        if self._state == _READY:
            self.deadline = self.hub.loop.time() + self.hub.limits.header_timeout
        elif self._state != _CHUNKS:
            self.transport.pause_reading()
        self._pending = received

    def _work_off(self, scanned: int) -> None:
        """Use what was held back, as far as possible, then go on reading."""
        pending = self._pending
        if pending is not None and self._state in _RECEIVING:
            self._pending = None
            with memoryview(pending) as view:
                used = self._advance(pending, view, len(pending), scanned)
            if used < len(pending) and self._state < _CLOSING:
                self._pending = pending[used:] if used else pending
                if used and self._state == _READY:
                    self.deadline = self.hub.loop.time() + self.hub.limits.header_timeout
        if self._state in {_BUSY, _FLUSHING} and self._pending is not None:
            self.transport.pause_reading()
        elif self._eof:
            if self._state in _INCOMPLETE:
                self.eof_received()
                self.close()
        elif self._state < _CLOSING:
            self.transport.resume_reading()

    def _begin_body(self, head: Head, first: memoryview, received_ns: int) -> None:
        """Receive the rest of a body whose first bytes came with its head."""
        length = head.content_length
        # Untouched memory: a client that lies about the length costs address space only.
        try:
            self._body = bytearray(length) if length < _LARGE else np.empty(length, np.uint8).data
        except MemoryError:
            raise HttpError(503, f"no memory for a body of {length} bytes") from None
        rest = memoryview(self._body)
        rest[: len(first)] = first
        self._rest = rest[len(first) :]
        self._state = _BODY
        self._await_body(head, received_ns)

    def _begin_chunks(self, head: Head, received_ns: int) -> None:
        self._decoder = ChunkedDecoder(self.hub.limits.max_body_size)
        self._state = _CHUNKS
        self._await_body(head, received_ns)

    def _await_body(self, head: Head, received_ns: int) -> None:
        self._head = head
        self._received_ns = received_ns
        self._since = self.hub.loop.time()
        self.deadline = self._since + self.hub.limits.body_timeout
        if head.expects_continue:
            self.transport.write(CONTINUE)

    def _handle(self, head: Head, body: Body, received_ns: int) -> None:
        self._state = _BUSY
        self._request = request = Request(self, head, body, received_ns)
        request.serve()
        if self._request is request and not self._write_paused:
            self.deadline = math.inf

    # --- answering --------------------------------------------------------------------------------------------------

    @property
    def may_stay(self) -> bool:
        """Whether another request can follow on this connection."""
        return not self.hub.closing and not (self._eof and self._pending is None)

    async def writable(self) -> None:
        """Wait until the client has taken enough to be sent more."""
        if self._write_paused:
            self._writable = self.hub.loop.create_future()
            await self._writable

    def answered(self, keep_alive: bool) -> None:
        """The whole answer is with the transport: what comes next?"""
        self._request = None
        if not keep_alive:
            self.close()
        elif self._write_paused:
            self._state = _FLUSHING
        else:
            self._next()
            if not self._advancing:
                self._work_off(0)

    def _abandon(self) -> None:
        request, self._request = self._request, None
        if request is not None:
            request.abandon()

    def _next(self) -> None:
        self._state = _READY
        self.deadline = self.hub.idle_deadline

    def _refuse(self, error: HttpError) -> None:
        """Answer a request that cannot be read on, and close once the client has had the time to read the answer.

        Closing at once would reset the connection where the client is still sending, and take the answer with it.
        """
        self._answer_error(error)
        self._state = _LINGERING
        self._pending = self._rest = self._decoder = None
        self._body = b""
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self.transport.resume_reading()
            self.deadline = self.hub.loop.time() + LINGER_S
        else:
            self.transport.close()

    def _answer_error(self, error: HttpError) -> None:
        encoded = self.hub.responses.encode(error.response, None, keep_alive=False)
        self.transport.write(cast("bytes", encoded))

    # --- the hub's side ---------------------------------------------------------------------------------------------

    @property
    def is_idle(self) -> bool:
        """Between requests, with nothing of the next one here."""
        return self._state == _READY and self._pending is None

    def close(self) -> None:
        """Close when all that was written is with the client."""
        self._state = _CLOSING
        self._pending = None
        self._unsent = self.transport.get_write_buffer_size()
        self.transport.close()
        self.deadline = self.hub.loop.time() + self.hub.limits.write_timeout

    def abort(self) -> None:
        """Close now."""
        self.deadline = math.inf
        self.transport.abort()

    def expire(self, now: float) -> None:
        """The deadline is over: find out what it was for."""
        state = self._state
        limits = self.hub.limits
        if self.transport.is_closing() and state != _CLOSING:
            self.abort()
        elif self._write_paused or state == _CLOSING:
            unsent = self.transport.get_write_buffer_size()
            if unsent < self._unsent:
                self._unsent = unsent
                self.deadline = now + limits.write_timeout
            else:
                self.abort()
        elif state == _READY:
            if self._pending is None:
                self.close()
            else:
                self._refuse(HttpError(408, "the request took too long to arrive (--http-header-timeout)"))
        elif state in {_BODY, _CHUNKS}:
            received = len(self._body) - len(self._rest or b"")
            if self._decoder is not None:
                received = len(self._decoder.body)
            if received >= (now - self._since) * limits.min_body_rate:
                self.deadline = now + 1.0
            else:
                self._refuse(body_too_slow())
        else:
            self.abort()

    @property
    def _can_upgrade(self) -> bool:
        # With TLS, what a connection speaks was settled by ALPN.
        return self.hub.http2 is not None and self.transport.get_extra_info("ssl_object") is None

    def _hand_over(self, received: bytes) -> None:
        """Let hypercorn go on with this connection, which speaks HTTP/2."""
        lane = self.hub.http2
        assert lane is not None
        self._state = _CLOSED
        self.deadline = math.inf
        self.hub.discard(self)
        lane.take(self.transport, received)

"""Response heads of HTTP/1.1: what goes out before the body."""

from __future__ import annotations

import re
from collections.abc import Sequence
from http import HTTPStatus

from trivet.http import Body, Header, HttpResponse

from trivet_transport_http.head import Head

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"

_CLOSE = b"connection: close\r\n\r\n"
_KEEP_ALIVE = b"connection: keep-alive\r\n\r\n"
_BODILESS = frozenset((204, 304))

_STATUS_LINES = {s.value: f"HTTP/1.1 {s.value} {s.phrase}\r\n".encode() for s in HTTPStatus}
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_FRAMING = frozenset((b"content-length", b"transfer-encoding", b"connection", b"keep-alive", b"upgrade"))


def check_header(name: bytes, value: bytes) -> None:
    """:class:`ValueError` unless a response of a handler may carry this header.

    A line break inside of one would let whoever chose the value write responses of their own.
    """
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"response header name {name!r}: expected a lower-case token")
    if name in _FRAMING:
        raise ValueError(f"response header {name!r} is the transport's to set")
    if _VALUE.fullmatch(value) is None:
        raise ValueError(f"response header {name!r}: its value has control characters")


def has_body(status: int) -> bool:
    """Whether a response of this status may have a body, and so a ``content-length``."""
    return status >= 200 and status not in _BODILESS


class ResponseEncoder:
    """Turns responses into what is written to the socket.

    Handlers answer with few different heads, so rendered ones are remembered. Used on one event loop.
    """

    CACHE_SIZE = 512
    """Heads that are remembered; when there are more, all are forgotten."""
    JOINED_SIZE = 64 * 1024
    """Bytes of a body up to which it is copied behind its head, for one write; a larger one is not copied."""

    def __init__(self) -> None:
        self.common = b""
        """Header lines that every response has."""
        self._cache: dict[tuple[int, Sequence[Header]], bytes] = {}

    def encode(self, response: HttpResponse, head: Head | None, keep_alive: bool) -> bytes | list[Body]:
        """The whole response to the request of ``head`` (if it got that far), or the response's head if it is a stream.

        :class:`ValueError` for a header that no handler may set, :class:`TypeError` for a body that is not contiguous.
        """
        is_http10 = head is not None and head.is_http10
        status = response.status
        headers = response.headers
        rendered = self._cache.get((status, headers)) if type(headers) is tuple else None
        if rendered is None:
            rendered = self._render(status, tuple(headers))
        ending = _CLOSE if not keep_alive else _KEEP_ALIVE if is_http10 else b"\r\n"
        if response.stream is not None:
            # An HTTP/1.0 client takes a stream to last until the connection ends.
            return rendered + (ending if is_http10 else b"transfer-encoding: chunked\r\n" + ending)
        body = response.body
        size = 0
        for buffer in body:
            size += buffer.nbytes if type(buffer) is memoryview else len(buffer)
        if status in _BODILESS or status < 200:
            if size:
                raise ValueError(f"a response of status {status} has no body")
            return rendered + ending
        rendered = b"%bcontent-length: %d\r\n%b" % (rendered, size, ending)
        if head is not None and head.is_head:
            return rendered
        return b"".join((rendered, *body)) if size <= self.JOINED_SIZE else [rendered, *_byte_views(body)]

    def _render(self, status: int, headers: tuple[Header, ...]) -> bytes:
        key = (status, headers)
        rendered = self._cache.get(key)
        if rendered is None:
            parts = [_STATUS_LINES.get(status) or b"HTTP/1.1 %d Unknown\r\n" % status]
            for name, value in headers:
                check_header(name, value)
                parts += (name, b": ", value, b"\r\n")
            rendered = b"".join((*parts, self.common))
            if len(self._cache) >= self.CACHE_SIZE:
                self._cache.clear()
            self._cache[key] = rendered
        return rendered


def alternative_service(port: int) -> bytes:
    """The value of ``alt-svc`` that tells clients that HTTP/3 is at this UDP port, for a day (RFC 7838)."""
    return b'h3=":%d"; ma=86400' % port


def encode_chunk(data: bytes) -> bytes:
    """One chunk of a stream; ``data`` is not empty, since that would end it."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def _byte_views(body: Sequence[Body]) -> list[Body]:
    """``body`` as buffers whose ``len`` is their size in bytes, without empty ones and without copying."""
    views: list[Body] = []
    for buffer in body:
        if type(buffer) is memoryview:
            if buffer.nbytes:
                views.append(buffer if buffer.format == "B" and buffer.ndim == 1 else buffer.cast("B"))
        elif buffer:
            views.append(buffer)
    return views

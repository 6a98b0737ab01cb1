"""The chunked transfer coding of request bodies (RFC 9112, section 7.1), without I/O."""

from __future__ import annotations

import re

from trivet_transport_http.errors import HttpError, body_too_large

# At most 15 digits: no 64-bit reader can overflow. An extension is skipped, its line bounded by MAX_LINE.
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")
_TRAILER_LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*")

_SIZE, _DATA, _DATA_END, _TRAILER = range(4)


class ChunkedDecoder:
    """Collects a chunked body. Every line must end with CR LF, extensions and trailers are checked and dropped."""

    MAX_LINE = 1024
    """Bytes of a line that carries a chunk's size, or a trailer."""
    MAX_TRAILERS = 64

    __slots__ = ("_limit", "_remaining", "_state", "_trailers", "body", "done")

    def __init__(self, limit: int) -> None:
        """``limit`` is the bytes that a body may have."""
        self._limit = limit
        self._state = _SIZE
        self._remaining = 0
        self._trailers = 0
        self.body = bytearray()
        self.done = False

    def feed(self, buffer: bytearray, start: int, end: int) -> int:
        """Take what ``buffer[start:end]`` has of the body and return where to go on.

        Less than ``end`` is taken when the body is :attr:`done`, or when a line is cut off: then call again with its
        beginning and more. Raises :class:`HttpError`: 400 for a malformed body, 413 for one larger than the limit.
        """
        while True:
            if self._state == _DATA:
                taken = min(self._remaining, end - start)
                with memoryview(buffer) as view:
                    self.body += view[start : start + taken]
                start += taken
                self._remaining -= taken
                if self._remaining:
                    return start
                self._state = _DATA_END
            if self._state == _DATA_END:
                if end - start < 2:
                    if end - start == 1 and buffer[start] != 13:
                        raise HttpError(400, "malformed chunked body: a chunk is longer than its size says")
                    return start
                if buffer[start] != 13 or buffer[start + 1] != 10:
                    raise HttpError(400, "malformed chunked body: a chunk is longer than its size says")
                start += 2
                self._state = _SIZE
            stop = buffer.find(b"\r\n", start, min(end, start + self.MAX_LINE + 2))
            if stop < 0:
                if end - start > self.MAX_LINE:
                    raise HttpError(400, f"malformed chunked body: a line is longer than {self.MAX_LINE} bytes")
                if buffer.find(b"\n", start, end) >= 0:
                    raise HttpError(400, "malformed chunked body: a line must end with CR LF")
                return start
            line = bytes(buffer[start:stop])
            start = stop + 2
            if self._state == _SIZE:
                self._begin_chunk(line)
            elif not line:
                self.done = True
                return start
            else:
                self._check_trailer(line)

    def _begin_chunk(self, line: bytes) -> None:
        match = _SIZE_LINE.fullmatch(line)
        if match is None:
            raise HttpError(400, "malformed chunked body: a chunk must begin with its size in hexadecimal digits")
        size = int(match[1], 16)
        if len(self.body) + size > self._limit:
            raise body_too_large(self._limit)
        self._remaining = size
        self._state = _DATA if size else _TRAILER

    def _check_trailer(self, line: bytes) -> None:
        self._trailers += 1
        if self._trailers > self.MAX_TRAILERS:
            raise HttpError(431, f"more than {self.MAX_TRAILERS} trailers")
        if _TRAILER_LINE.fullmatch(line) is None:
            raise HttpError(400, "malformed chunked body: malformed trailer")

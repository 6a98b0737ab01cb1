"""Request line and headers of an HTTP/1.1 request: bytes in, :class:`Head` out.

llhttp (through httptools) reads the syntax, in its strict mode. What it lets pass and RFC 9112 or common sense do not
is refused here: anything that two HTTP implementations in a row could read differently is an error, never a guess.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from httptools import (
    HttpParserError,
    HttpParserInvalidMethodError,
    HttpParserUpgrade,
    HttpRequestParser,
)

from trivet_transport_http.errors import HttpError, body_too_large, head_too_large, too_many_headers, url_too_long
from trivet_transport_http.options import Limits
from trivet_transport_http.router import Match, Router

CHUNKED = -1


@dataclass(slots=True, eq=False, kw_only=True)
class Head:
    """A parsed head. All requests whose heads are the same bytes share it, so nobody changes it."""

    method: str
    match: Match
    query: bytes
    headers: Mapping[bytes, bytes]
    content_length: int
    """Bytes of the body, or :data:`CHUNKED`."""
    keep_alive: bool
    expects_continue: bool
    is_head: bool
    is_http10: bool
    wants_h2c: bool
    """Asks to go on in HTTP/2 (RFC 7540, section 3.2) and has no body, so that it can be done."""


class _Events:
    """What llhttp found in one head."""

    __slots__ = ("complete", "count", "headers", "max_count", "url")

    def __init__(self, max_count: int) -> None:
        self.url = b""
        self.headers: dict[bytes, bytes] = {}
        self.count = 0
        self.max_count = max_count
        self.complete = False

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.count += 1
        if self.count > self.max_count:
            raise too_many_headers(self.max_count)
        name = name.lower()
        value = value.rstrip(b" \t")
        headers = self.headers
        if name in headers:
            if name in _ONCE:
                raise HttpError(400, f"more than one {name.decode()} header")
            value = headers[name] + b", " + value
        headers[name] = value

    def on_headers_complete(self) -> None:
        self.complete = True


_NO_TOKENS: frozenset[bytes] = frozenset()
_REQUEST_LINE = re.compile(rb"[^ \r\n]+ [^ \r\n]+ HTTP/1\.([01])\r\n")
_ONCE = frozenset((b"host", b"content-length", b"transfer-encoding", b"expect"))


class HeadParser:
    """Parses heads, and remembers those it has seen twice.

    A client repeats the same head for as long as it asks the same thing, so most heads are found by their bytes. One
    with an identifier of its request in it never comes again: of those only hashes are kept, so that they do not push
    out the others. All memory is bounded. Used on one event loop, and so without locks.
    """

    CACHE_SIZE = 512
    """Heads that are remembered; when there are more, all are forgotten, and so with the hashes."""
    CACHED_LENGTH = 2048
    """Bytes up to which a head is remembered."""
    SEEN_SIZE = 4096
    """Hashes of heads that came once."""

    def __init__(self, router: Router, limits: Limits) -> None:
        self._router = router
        self._limits = limits
        self._cache: dict[bytes, Head] = {}
        self._seen: set[int] = set()
        self.lookup: Callable[[bytes], Head | None] = self._cache.get
        """The head for these bytes if it is remembered."""

    def parse(self, raw: bytes) -> Head:
        """``raw`` starts at the method and ends with the first empty line. Raises :class:`HttpError`."""
        head = self._parse(raw)
        if len(raw) <= self.CACHED_LENGTH:
            key = hash(raw)
            if key in self._seen:
                if len(self._cache) >= self.CACHE_SIZE:
                    self._cache.clear()
                self._cache[raw] = head
            else:
                if len(self._seen) >= self.SEEN_SIZE:
                    self._seen.clear()
                self._seen.add(key)
        return head

    def check_beginning(self, buffer: bytearray, start: int, end: int) -> None:
        """Refuse a head of which only ``buffer[start:end]`` is here, not empty, once it is seen that it will not do.

        Raises :class:`HttpError`.
        """
        limits = self._limits
        if buffer[start] != 13 and not 65 <= buffer[start] <= 90:
            raise HttpError(
                400, "malformed request: expected a method in capital letters; is this TLS on a plain port?"
            )
        size = end - start
        if size > limits.max_url_length and buffer.find(b"\r\n", start, end) < 0:
            raise url_too_long(limits.max_url_length)
        if size > limits.max_header_size:
            raise head_too_large(limits.max_header_size)

    def _parse(self, raw: bytes) -> Head:
        limits = self._limits
        if len(raw) > limits.max_header_size:
            raise head_too_large(limits.max_header_size)
        is_http10 = _check_lines(raw)
        events = _Events(limits.max_header_count)
        parser = HttpRequestParser(events)
        try:
            parser.feed_data(raw)
        except HttpParserUpgrade:
            # llhttp stops after the head of a CONNECT or Upgrade request. Nothing is upgraded unless we say so, so
            # such a request is read like any other.
            pass
        except HttpParserInvalidMethodError:
            raise HttpError(501, "unknown method") from None
        except HttpParserError as error:
            if isinstance(error.__context__, HttpError):
                raise error.__context__ from None
            raise HttpError(400, f"malformed request: {error}") from None
        if not events.complete:
            raise HttpError(400, "malformed request: no end of headers")

        headers = events.headers
        if b"host" not in headers and not is_http10:
            raise HttpError(400, "malformed request: no Host header")
        content_length = _content_length(headers, is_http10)
        if content_length > limits.max_body_size:
            raise body_too_large(limits.max_body_size)
        connection = headers.get(b"connection")
        tokens = _tokens(connection) if connection else _NO_TOKENS
        expects_continue = _expects_continue(headers) and not is_http10
        raw_path, _, query = _origin_form(events.url, limits).partition(b"?")
        method = parser.get_method().decode()
        return Head(
            method=method,
            match=self._router.resolve(method, raw_path),
            query=query,
            headers=MappingProxyType(headers),
            content_length=content_length,
            # llhttp lets "close, keep-alive" live; closing is what no client can misunderstand.
            keep_alive=b"close" not in tokens and (not is_http10 or b"keep-alive" in tokens),
            expects_continue=expects_continue,
            is_head=method == "HEAD",
            is_http10=is_http10,
            wants_h2c=(
                b"upgrade" in tokens
                and b"h2c" in _tokens(headers.get(b"upgrade", b""))
                and b"http2-settings" in headers
                and content_length == 0
            ),
        )


def _check_lines(raw: bytes) -> bool:
    """Refuse a request line that llhttp reads too kindly, and return whether it says HTTP/1.0."""
    ends = raw.count(b"\r\n")
    if raw.count(b"\n") != ends or raw.count(b"\r") != ends:
        raise HttpError(400, "malformed request: a line must end with CR LF, and neither may stand alone")
    line = _REQUEST_LINE.match(raw)
    if line is None:
        if re.match(rb"[^ ]+ [^ ]+ HTTP/\d\.\d\r\n", raw):
            raise HttpError(505, "unsupported HTTP version, expected HTTP/1.1 or HTTP/1.0")
        raise HttpError(400, "malformed request line: expected METHOD TARGET HTTP/1.1")
    return line[1] == b"0"


def _content_length(headers: dict[bytes, bytes], is_http10: bool) -> int:
    coding = headers.get(b"transfer-encoding")
    if coding is not None:
        if is_http10:
            raise HttpError(400, "malformed request: Transfer-Encoding in an HTTP/1.0 request")
        if b"content-length" in headers:
            raise HttpError(400, "malformed request: both Transfer-Encoding and Content-Length")
        if coding.lower() != b"chunked":
            raise HttpError(501, "unsupported Transfer-Encoding, expected chunked")
        return CHUNKED
    length = headers.get(b"content-length")
    if length is None:
        return 0
    # llhttp has checked it; a number is read twice because what it decides is where the next request begins.
    if not length.isdigit() or len(length) > 19:
        raise HttpError(400, "malformed request: Content-Length is not a decimal number")
    return int(length)


def _expects_continue(headers: dict[bytes, bytes]) -> bool:
    expected = headers.get(b"expect")
    if expected is None:
        return False
    if expected.lower() != b"100-continue":
        raise HttpError(417, "unsupported Expect header, expected 100-continue")
    return True


def _origin_form(target: bytes, limits: Limits) -> bytes:
    """Path and query of the request target, which may come with scheme and authority (RFC 9112, section 3.2.2)."""
    if len(target) > limits.max_url_length:
        raise url_too_long(limits.max_url_length)
    if b"#" in target:
        raise HttpError(400, "malformed request line: a fragment is not part of a request target")
    if target.startswith(b"/"):
        return target
    scheme, found, rest = target.partition(b"://")
    if found and scheme.lower() in {b"http", b"https"}:
        slash = rest.find(b"/")
        question = rest.find(b"?")
        if slash < 0 or 0 <= question < slash:
            return b"/" + rest[question:] if question >= 0 else b"/"
        return rest[slash:]
    return target  # "*" of OPTIONS, or the authority of CONNECT: no route has it


def _tokens(value: bytes) -> frozenset[bytes]:
    return frozenset(token.strip().lower() for token in value.split(b","))
